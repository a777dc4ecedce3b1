"""Configuration → plugins, dictionary, mappings, hub → the daemon's parts. The only file that sees all of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import msgspec

from crosswalk.dictionary import Dictionary
from crosswalk.mapping import SystemMapping, load_mapping
from crosswalk.workflow import Workflows, load_workflows
from engine.config.model import Config, SystemConfig
from engine.daemon import Daemon
from engine.errors import ConfigError, no_such
from engine.first_sync import FirstSync
from engine.hub.sqlite import SqliteHub, open_hub, read_hub
from engine.hub.transaction import HubTransaction
from engine.lanes import Member
from engine.needs import Shapes, unkept
from engine.owners import chosen_dictionary, ownerless, unplayed_owners
from engine.pipeline.derive import Deriver
from engine.pipeline.enroll import Enrolment, enroll, forget_absent_sources
from engine.pipeline.join_plan import plan_joins
from engine.pipeline.joined_system import JoinedSystem, JoinedTarget
from engine.pipeline.topology import Topology
from engine.planning import Plan
from engine.ports import Finding, Mapping, Role, Source, System, Target
from engine.runtime.clock import SystemClock
from engine.secret import Secret
from engine.telemetry.log import Log


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """Dictionary and mappings of a configuration, checked as far as files alone allow."""

    dictionary: Dictionary
    mappings: dict[str, SystemMapping]
    workflows: Workflows | None = None
    remarks: tuple[Finding, ...] = ()
    """What is doubtful in the files, though it can be run."""


def load_meaning(config: Config) -> Meaning:
    """Raises `ConfigError` with the problems of all files together."""
    problems: list[str] = []
    mappings: dict[str, SystemMapping] = {}
    written = chosen_dictionary(config)
    names = [system.name for system in config.systems]
    roles = {system.name: system.role for system in config.systems}
    dictionary = written.for_systems(names, roles)
    for system in config.systems:
        try:
            mappings[system.name] = load_mapping(
                system.mapping, dictionary, system=system.name, dialect=system.dialect, settings=system.settings
            )
        except ConfigError as error:
            problems.extend(error.problems or (str(error),))
    workflows: Workflows | None = None
    if config.workflows is not None:
        try:
            workflows = load_workflows(config.workflows)
            workflows.bind({entity.name: entity for entity in dictionary.entities})
        except ConfigError as error:
            problems.extend(error.problems or (str(error),))
    if not problems:
        problems = ownerless(config, written, mappings)
    if not problems:
        problems = [str(found) for found in unkept(config.systems, mappings, dictionary)]
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"the mappings have {count}", problems=tuple(problems))
    mapped = {place.entity for mapping in mappings.values() for place in mapping.places}
    return Meaning(
        dictionary=dictionary,
        mappings=mappings,
        workflows=workflows,
        remarks=tuple(unplayed_owners(written, mapped, [roles.get(name) or name for name in names])),
    )


def unkept_findings(config: Config, meaning: Meaning, shapes: Shapes) -> list[tuple[str, Finding]]:
    """(system, what its tables, as they are, make of the promises that the configuration needs)."""
    return [
        (found.system, Finding(path=found.table, message=f"{found.message} ({found.where})", hint=found.hint))
        for found in unkept(config.systems, meaning.mappings, meaning.dictionary, shapes)
    ]


def named_system(config: Config, name: str) -> SystemConfig:
    """Raises `Unknown` when the configuration has no such system."""
    found = config.system(name)
    if found is None:
        raise no_such("system", name, (system.name for system in config.systems))
    return found


def chosen_systems(config: Config, name: str | None) -> tuple[SystemConfig, ...]:
    """The one that is named, all without a name."""
    return config.systems if name is None else (named_system(config, name),)


def role_of(config: SystemConfig) -> Role:
    """What set-up and checks must make possible."""
    role = Role.SOURCE if config.mode.is_source else Role(0)
    return role | Role.TARGET if config.mode.is_target else role


def tables_of(mapping: SystemMapping) -> tuple[str, ...]:
    return tuple(dict.fromkeys(place.table for place in mapping.places))


def make_system(config: SystemConfig, mapping: Mapping | None = None) -> System:
    """The system as its mapping sees it; without one as it is. Raises `ConfigError` when a secret of the system is not
    where its configuration says."""
    for field in msgspec.structs.fields(config.options):
        secret = getattr(config.options, field.name)
        if isinstance(secret, Secret):
            try:
                secret.reveal(config.site.directory)
            except ConfigError as error:
                raise ConfigError(f"system {config.name}: {error.message}", hint=error.hint) from error
    system = config.plugin.system(config.site, config.options)
    plan = plan_joins(mapping.places if mapping is not None else ())
    return JoinedSystem(system, plan, config.dialect) if plan.joins else system


def make_member(config: SystemConfig, topology: Topology) -> Member:
    """A system with its live parts."""
    source: Source | None = None
    target: Target | None = None
    if config.mode.is_source and config.plugin.source is not None:
        source = config.plugin.source(config.site, config.options)
    if config.mode.is_target and config.plugin.target is not None:
        target = config.plugin.target(config.site, config.options)
    config.site.work_directory.mkdir(parents=True, exist_ok=True)
    part = topology.named(config.name)
    system = make_system(config, part.mapping)
    if isinstance(system, JoinedSystem) and target is not None:
        target = JoinedTarget(target, system, topology.hub_id)
    return Member(part=part, system=system, source=source, target=target)


def make_topology(tx: HubTransaction, hub_id: str, config: Config, meaning: Meaning) -> Topology:
    """Register the configuration in the hub; what is registered already keeps its numbers."""
    enrolments = [
        Enrolment(
            name=system.name,
            mapping=meaning.mappings[system.name],
            is_source=system.mode.is_source,
            is_target=system.mode.is_target,
        )
        for system in config.systems
    ]
    topology = enroll(tx, hub_id, meaning.dictionary.entities, enrolments)
    if meaning.workflows is None:
        return topology
    entities = {part.entity.name: part.entity for part in topology.entities.values()}
    return replace(topology, workflows=meaning.workflows.bind(entities, is_partial=True))


@asynccontextmanager
async def open_daemon(config: Config, log: Log, plan: Plan | None = None, slack: int = 0) -> AsyncGenerator[Daemon]:
    """The daemon, owning the hub and fencing every earlier one. `plan`: of its first sync, see `FirstSync`.

    Raises `HubBusy` when another one runs.
    """
    meaning = load_meaning(config)
    async with open_hub(config.hub, SystemClock()) as hub:
        topology = register(hub, config, meaning)
        hub.take_over()
        members = [make_member(system, topology) for system in config.systems]
        systems = [(member.part, member.system) for member in members]
        gate = None if plan is None else FirstSync(hub, topology, plan, slack, systems)
        yield Daemon(hub, topology, members, log, retention_days=config.retention_days, gate=gate)


def register(hub: SqliteHub, config: Config, meaning: Meaning) -> Topology:
    """The configuration with the hub's numbers, new ones given where needed."""

    def enrol(tx: HubTransaction) -> Topology:
        topology = make_topology(tx, hub.hub_id, config, meaning)
        Deriver(topology).learn(tx)
        forget_absent_sources(tx, topology)
        return topology

    return hub.transact_now(enrol)


class _View(HubTransaction):
    """A hub that is only looked at: what the configuration has and the hub has not is made up and not written."""

    def write(self, sql: str, bindings: Sequence[object] = ()) -> None:
        """Nothing."""


@contextmanager
def open_view(config: Config, meaning: Meaning) -> Generator[tuple[HubTransaction, Topology]]:
    """The hub for reading, beside a running daemon or without one. What the hub has not registered yet is missing.

    Raises `HubError` when there is no hub, `ConfigError` when the daemon has never run with this configuration.
    """
    with read_hub(config.hub) as connection:
        tx = _View(connection, SystemClock())
        hub_id = tx.rows("select id from hub")[0][0]
        known = {name for (name,) in tx.rows("select name from system")}
        places = {(s, p) for s, p in tx.rows("select s.name, p.name from place p join system s on s.id = p.system")}
        for system in config.systems:
            wanted = {(system.name, place.name) for place in meaning.mappings[system.name].places}
            if system.name not in known or not wanted <= places:
                raise ConfigError(
                    f"the hub does not know all of system {system.name} yet",
                    hint="Run `concord run` once with this configuration.",
                    system=system.name,
                )
        yield tx, make_topology(tx, hub_id, config, meaning)
