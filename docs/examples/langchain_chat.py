from langchain_openai import ChatOpenAI, OpenAIEmbeddings

model = ChatOpenAI(model="general")
for chunk in model.stream("How high is the water?"):
    print(chunk.text, end="", flush=True)
print()

# LangChain cuts texts into OpenAI's tokens itself unless told not to; then any embedding model will do.
embeddings = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
print(len(embeddings.embed_query("water")))
