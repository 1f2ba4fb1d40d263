"""The parts of the conversion in `proxy.config.litellm`: what LiteLLM's file says, one module for each kind of statement."""
