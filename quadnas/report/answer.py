"""What a command answers."""

from typing import Any

Answer = tuple[dict[str, Any], str]
"""A value for JSON, and the same as text for the terminal."""
