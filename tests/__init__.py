"""Tests, in folders as the package has them."""

import pytest

pytest.register_assert_rewrite("tests.helpers")
