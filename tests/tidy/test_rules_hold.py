"""The repository keeps every house rule."""

from __future__ import annotations

import pytest

from tests.tidy import rules_code, rules_house, rules_ports, rules_tasks
from tests.tidy.source_tree import Rule, Tree, repository

RULES: tuple[Rule, ...] = (
    rules_code.opening_sentences,
    rules_code.files_too_long,
    rules_code.most_files_short,
    rules_code.functions_too_long,
    rules_code.drawer_names,
    rules_code.unfinished_work,
    rules_code.public_names,
    rules_ports.ambient_world,
    rules_ports.stale_permissions,
    rules_ports.blind_except,
    rules_tasks.owned_tasks,
    rules_house.nothing_local,
    rules_house.files_are_small,
    rules_house.components_explain_themselves,
    rules_house.dependencies_are_explained,
    rules_house.changelog_is_open,
    rules_house.settings_are_documented,
    rules_house.settings_are_used,
)


@pytest.fixture(scope="module")
def tree() -> Tree:
    return repository()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps(rule: Rule, tree: Tree) -> None:
    findings = rule(tree)
    assert not findings, "\n".join([rule.__doc__ or "", *map(str, findings)])
