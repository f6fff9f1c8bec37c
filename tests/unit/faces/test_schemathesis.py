"""Schemathesis reads the served document and looks for answers that break it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from omendb_router.rest.app import ROUTES
from tests.unit.faces.conftest import Faces

EXAMPLES = 6
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.unsupported_method,
]


def test_every_operation_answers_as_the_document_says(faces: Faces) -> None:
    faces.make("c")
    schema = schemathesis.openapi.from_asgi("/openapi.json", faces.rest_face.app())
    tried = 0
    for operation in [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]:
        for mode in GenerationMode:

            @seed(1)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def answered(case: schemathesis.Case[Any]) -> None:
                nonlocal tried
                # A deadline that passes is an answer, and depends on the machine.
                case.query.pop("timeout", None)
                tried += 1
                case.call_and_validate(checks=CHECKS)

            # There is no wrong way to ask for what takes no parameter.
            with suppress(Unsatisfiable):
                answered()
    assert tried > EXAMPLES * len(ROUTES)
