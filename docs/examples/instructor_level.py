import instructor
from pydantic import BaseModel


class Level(BaseModel):
    river: str
    metres: float


client = instructor.from_provider("openai/general")
print(client.create(response_model=Level, messages=[{"role": "user", "content": "How high is the water?"}]))
