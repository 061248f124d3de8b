"""Every test has a home of its own for the user's files, or it would read and write the developer's."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_home_of_the_developer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """$QUADNAS_HOME is a folder that does not exist yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUADNAS_HOME", str(tmp_path_factory.mktemp("home") / "own"))
        yield
