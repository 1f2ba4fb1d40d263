from pydantic_ai import Agent

agent = Agent("openai-chat:general")  # openai-responses:general asks the Responses API


@agent.tool_plain
def forecast(river: str, days: int) -> str:
    """The water level of the coming days."""
    return f"The {river} will stand at 2 m in {days} days."


print(agent.run_sync("How high is the water?").output)
