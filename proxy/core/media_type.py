"""Whether what is sent says that it is JSON."""


def is_json(content_type: str | None) -> bool:
    if content_type == "application/json":  # mostly
        return True
    name = _name(content_type or "")
    return name == "application/json" or name.endswith("+json")


def refusal(content_type: str | None) -> str | None:
    """What to tell a client whose content-type names something else; None where it is JSON, or nothing is said."""
    if content_type is None or is_json(content_type):
        return None
    return (
        f"The content-type must be application/json, got {_name(content_type)[:80]!r}. "
        "With curl, add: -H 'content-type: application/json'."
    )


def _name(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
