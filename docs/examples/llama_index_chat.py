from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai_like import OpenAILike

# The class OpenAI takes OpenAI's own model names alone; OpenAILike takes any.
llm = OpenAILike(model="general", is_chat_model=True, is_function_calling_model=True)
for piece in llm.stream_complete("How high is the water?"):
    print(piece.delta, end="", flush=True)
print()

print(len(OpenAIEmbedding(model="text-embedding-3-small").get_text_embedding("water")))
