"""The context of a builder: its stores and records, the folder for unfinished files, and its limits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import EventLog
from ofp_platform.offline.datasets.dataset_index import DatasetIndex
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.offline.replay.archived_fold import LEAST_RECORDS
from ofp_platform.offline.replay.memory_budget import MemoryBudget
from ofp_platform.offline.requests.code_release import code_release_id
from ofp_platform.offline.requests.policies import SHIPPED_ALONE, BuildPolicies
from ofp_platform.offline.requests.resolver import BuildSources
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.offline.sources.spark_engine import demand_spark
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine
from ofp_platform.vocabulary.profile import BuildLimits

DEFAULT_LIMITS = BuildLimits()


@dataclass(frozen=True)
class BuildContext:
    """The stores, records and limits of one stream's builder. `scratch`: a folder for unfinished files; it may be emptied
    between runs.

    The pool and the log stay the caller's. `workers`: threads that compute features, and processes that fold an archive of at
    least `processes_from` records. `engine` computes the features. `memory`: bytes that all processes of a build together may
    hold; None: a fold is cut into the least number of shards. `limits`: those of the profile; `clock`: seconds, for pauses only;
    `policy_rev`: the policy of the profile, which plans and manifests name;
    `policies`: the build policies that there are; `context_log`: the stream of identity links, if there is one. `on_look` is told
    every second or so, while a build runs, how many bytes of scratch and files it holds.

    Raises:
        SparkUnavailable: the engine is Spark, and it is not installed here.
        MemoryTooSmall: the memory does not hold so many workers.
    """

    pool: Pool
    log: EventLog
    objects: ObjectStore
    scratch: Path
    workers: int = 2
    release: str = ""
    processes_from: int = LEAST_RECORDS
    engine: FeatureEngine = FeatureEngine.PROCESSES
    memory: int | None = None
    limits: BuildLimits = DEFAULT_LIMITS
    clock: Callable[[], float] = time.monotonic
    policy_rev: str | None = None
    on_look: Callable[[int], None] = lambda held: None
    policies: BuildPolicies = SHIPPED_ALONE
    context_log: EventLog | None = None

    def __post_init__(self) -> None:
        if self.engine is FeatureEngine.SPARK:
            demand_spark()
        self.memory_budget  # noqa: B018 - refused here, before anything is begun

    @cached_property
    def memory_budget(self) -> MemoryBudget:
        """The memory of a build, from which the sizes of its folds follow."""
        return MemoryBudget(self.memory, self.workers)

    @property
    def ofs_code_release_id(self) -> str:
        """The release that builds are pinned to: `release` where it is set, else the installed one."""
        return self.release or code_release_id()

    @property
    def archive(self) -> Archive:
        """The archive of the stream."""
        return Archive(self.objects, self.log.stream_name)

    @property
    def stream_records(self) -> StreamRecords:
        """Archive and log as they stand now."""
        return StreamRecords(self.log, self.archive)

    @cached_property
    def ledger(self) -> RunLedger:
        """The run ledger."""
        return RunLedger(self.pool, self.limits, self.policies)

    @cached_property
    def index(self) -> DatasetIndex:
        """The index of published datasets."""
        return DatasetIndex(self.pool, self.objects)

    @property
    def sources(self) -> BuildSources:
        """The sources from which an intent is resolved."""
        next_sequences = LabelStore.next_sequences(self.pool)
        records, is_published = self.stream_records, self.index.is_published
        return BuildSources(self.pool, records, is_published, next_sequences, self.policy_rev, self.policies, self.context_log)

    def run_folder(self, run_key: str) -> Path:
        """The folder of one run's unfinished files."""
        return self.scratch / run_key
