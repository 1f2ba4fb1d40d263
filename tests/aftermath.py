"""What a failed test leaves behind goes with it: no later test is struck by what its objects say when they are collected.

A failure's traceback keeps the test's frames, and with them its open transports, until the next test is called. They would
be collected then, in the middle of a test that has nothing to do with them, and warn there, where warnings are errors.
A test that passed is not helped: what it leaves open fails it, or whoever comes next.
"""

import gc
import sys
import warnings
from collections.abc import Generator

import pytest

_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    if not item.stash.get(_FAILED, False):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the failure is told, and these are its consequences
        try:
            yield
        finally:  # a loop with open transports cannot be closed either
            for name in ("last_exc", "last_value", "last_traceback"):
                if hasattr(sys, name):
                    delattr(sys, name)
            gc.collect()
