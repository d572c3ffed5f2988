"""Process counters in Prometheus form. Totals of the projection come from the store, not from here: see health.py."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from ofp_platform.online.service.loop_metrics import Durations, Tally


class Counters:
    """The counters of one process, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.snapshots_built = Tally("ofp_snapshots_built", "Snapshots served", registry=self.registry)
        self.snapshot_failures = Counter(
            "ofp_snapshot_failures", "Requests refused or failed", ["error_code", "reason"], registry=self.registry
        )
        self.stale_graph_version = Counter(
            "ofp_stale_graph_version",
            "Answers by a graph version that lacked records of its stream when it was last looked at",
            registry=self.registry,
        )
        self.missing_features = Counter(
            "ofp_missing_features", "Groups served for a key without data (NO_DATA)", registry=self.registry
        )
        self.clock_behind = Gauge(
            "ofp_log_clock_behind_seconds",
            "How far the log's clock is behind an admission time that it gave: it stepped back",
            registry=self.registry,
        )
        self.served_log_bytes = Gauge("ofp_served_log_bytes", "Served and not stored yet", registry=self.registry)
        self.served_log_dropped = Counter(
            "ofp_served_log_dropped",
            "Served snapshots that were not logged: the store did not answer when the service ended",
            registry=self.registry,
        )
        self.get_features_seconds = Durations(
            "ofp_get_features_seconds",
            "Time from a whole request to a whole answer",
            (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
            registry=self.registry,
        )
        self.events_applied = Gauge("ofp_events_applied_total", "Events in the live projection", registry=self.registry)
        self.duplicates = Gauge("ofp_duplicates_total", "Records that were copies", registry=self.registry)
        self.late_events = Gauge("ofp_late_events_total", "Events from behind the horizon", registry=self.registry)
        self.anomalies = Gauge("ofp_anomalies_total", "Ids seen with another payload", registry=self.registry)
        self.anomalies_by_class = Gauge(
            "ofp_anomalies_by_class_total", "Ids seen with another payload", ["event_class"], registry=self.registry
        )
        self.build_requested = Gauge("ofp_build_requested_total", "Builds of the run that were asked for", registry=self.registry)
        self.build_completed = Gauge("ofp_build_completed_total", "Builds of the run that are DONE", registry=self.registry)
        self.build_failed = Gauge("ofp_build_failed", "Builds of the run that are FAILED now", ["reason"], registry=self.registry)
        self.datasets_built = Gauge("ofp_datasets_built_total", "Datasets of the run that are published", registry=self.registry)
        self.apply_failures = Gauge(
            "ofp_apply_failures_total", "Records not applied, to any group or to some", ["reason"], registry=self.registry
        )
        self.lag_records = Gauge("ofp_lag_records", "Records behind the head", ["partition"], registry=self.registry)
        self.shard_holds_epoch = Gauge(
            "ofp_shard_holds_epoch", "1 while the next epoch waits for this key shard", ["shard"], registry=self.registry
        )
        self.watermark_age_seconds = Gauge("ofp_watermark_age_seconds", "Clock minus watermark", registry=self.registry)
        self.background_task_up = Gauge(
            "ofp_background_task_up", "1 while it runs, 0 when it ended unasked", ["task"], registry=self.registry
        )
        self.signals_unwatched_seconds = Gauge(
            "ofp_signals_unwatched_seconds",
            "Since the signals of the posture of deciding were last looked at, +Inf: never; 0 where the policy has no thresholds",
            registry=self.registry,
        )
        self.posture = Gauge("ofp_posture", "0 GREEN, 1 AMBER, 2 RED", registry=self.registry)

    def total(self, name: str) -> int:
        """The total of the counter `ofp_<name>`, over all its labels."""
        return sum(
            int(sample.value)
            for metric in self.registry.collect()
            if metric.name == f"ofp_{name}"
            for sample in metric.samples
            if sample.name == f"ofp_{name}_total"
        )
