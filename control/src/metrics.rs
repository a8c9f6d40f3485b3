//! The numbers of the node, for Prometheus.
//!
//! Nothing is counted here: a scrape reads the shards' own counters and adds them up. A metric
//! that has no real value yet is absent, never zero.
//!
//! The classic text format and OpenMetrics disagree on the name of a counter's family: in
//! OpenMetrics it lacks the `_total` that its samples have. So there is a registry for each.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};
use ron_io::{
    arena::Owner,
    counter::Counter,
    stats::{CODES, Encoded, Op, Proto, Rejected, SECONDS_BUCKETS_US, Stats},
    work::Work,
};

use crate::{
    build_info::BuildInfo,
    bus::Bus,
    logging,
    names::NameStore,
    process::Process,
    reload::ReloadState,
    storage::{Figures, SetAside},
};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The Prometheus text format 0.0.4.
    Classic,
    /// OpenMetrics 1.0.0.
    Open,
}

impl Form {
    /// The form a client wants that sent this `Accept`, if it sent one. The classic one is for
    /// all who do not ask for the other, and do not prefer it less.
    pub fn accepted(accept: Option<&str>) -> Form {
        let weight = |wanted: &str| {
            let ranges = accept.unwrap_or_default().split(',');
            let weights = ranges.filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next()?.eq_ignore_ascii_case(wanted);
                let q = parts.find_map(|part| part.strip_prefix("q="));
                named.then(|| q.map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0)))
            });
            weights.fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Form::Open } else { Form::Classic }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Form::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Form::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of a node.
#[derive(Debug)]
pub struct Metrics {
    source: Arc<Source>,
    classic: Registry,
    open: Registry,
}

impl Metrics {
    /// The metrics of shards, in the order of their numbers.
    pub fn new(
        stats: Vec<Arc<Stats>>,
        bus: Bus,
        build: BuildInfo,
        reload: Arc<ReloadState>,
    ) -> Metrics {
        let loads = Mutex::new(vec![Load::default(); stats.len()]);
        let bill = OnceLock::new();
        let (set_aside, names) = (OnceLock::new(), OnceLock::new());
        let source = Arc::new(Source { stats, bus, build, reload, bill, set_aside, names, loads });
        let registry = |form| {
            let mut registry = Registry::default();
            let source = Arc::clone(&source);
            registry.register_collector(Box::new(Written { source, form }));
            registry
        };
        Metrics { classic: registry(Form::Classic), open: registry(Form::Open), source }
    }

    /// The same, and with what the node may take of memory.
    pub fn with_bill(self, bill: Vec<(&'static str, u64)>) -> Metrics {
        // Nobody else has them yet, so it was not set.
        let _ = self.source.bill.set(bill);
        self
    }

    /// The same, and with the space that is set aside on its volumes.
    pub fn with_set_aside(self, set_aside: SetAside) -> Metrics {
        // As of the bill.
        let _ = self.source.set_aside.set(set_aside);
        self
    }

    /// The same, and with the names.
    pub fn with_names(self, names: Arc<NameStore>) -> Metrics {
        // As of the bill.
        let _ = self.source.names.set(names);
        self
    }

    /// All metrics as of now. Ratios are over the time since the last call.
    ///
    /// # Errors
    /// None that a string can cause; the type is that of the encoder.
    pub fn render(&self, form: Form) -> Result<String, fmt::Error> {
        self.source.measure_loads();
        let mut out = String::with_capacity(16 * 1024);
        match form {
            Form::Classic => text::encode_registry(&mut out, &self.classic)?,
            Form::Open => text::encode(&mut out, &self.open)?,
        }
        Ok(out)
    }
}

#[derive(Debug)]
struct Source {
    stats: Vec<Arc<Stats>>,
    bus: Bus,
    build: BuildInfo,
    reload: Arc<ReloadState>,
    bill: OnceLock<Vec<(&'static str, u64)>>,
    set_aside: OnceLock<SetAside>,
    names: OnceLock<Arc<NameStore>>,
    loads: Mutex<Vec<Load>>,
}

/// How busy one shard was between two scrapes.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    busy_ns: u64,
    idle_ns: u64,
    ratio: f64,
}

impl Load {
    /// The load now, after this one. A shard that slept through the whole time has counted
    /// neither busy nor idle time: its ratio is 0.
    fn next(self, stats: &Stats) -> Load {
        let (busy_ns, idle_ns) = (stats.busy_ns.get(), stats.idle_ns.get());
        let busy = busy_ns.saturating_sub(self.busy_ns) as f64;
        let idle = idle_ns.saturating_sub(self.idle_ns) as f64;
        let ratio = if busy > 0.0 { busy / (busy + idle) } else { 0.0 };
        Load { busy_ns, idle_ns, ratio }
    }
}

type Pick = fn(&Stats) -> &Counter;

/// Counters that are one number a shard: name without `_total`, help, and where it is counted.
const COUNTERS: [(&str, &str, Pick); 28] = [
    ("ron_reject_oversize", "Uploads refused for their size.", |s| &s.oversize),
    ("ron_accept_failures", "Connections that could not be accepted.", |s| {
        &s.watch.ring.accept_failures
    }),
    ("ron_cache_hits", "Groups found verified in memory.", |s| &s.cache_hits),
    ("ron_cache_misses", "Groups that had to be read and verified.", |s| &s.cache_misses),
    ("ron_not_modified", "Answers 304: the client's copy is good.", |s| &s.not_modified),
    ("ron_range_requests", "Requests answered with a range.", |s| &s.ranges),
    ("ron_memory_waits", "Reads and uploads that waited for memory.", |s| &s.memory_waits),
    ("ron_memory_refusals", "Reads and uploads refused for want of memory.", |s| {
        &s.memory_refusals
    }),
    ("ron_readers_cut", "Readers cut that took nothing and held memory others waited for.", |s| {
        &s.readers_cut
    }),
    ("ron_uploads_cut", "Uploads that were slow and held memory others waited for.", |s| {
        &s.uploads_cut
    }),
    ("ron_verify_groups", "Groups hashed and compared before use.", |s| &s.verify_groups),
    ("ron_verify_bytes", "Bytes hashed and compared before use.", |s| &s.verify_bytes),
    ("ron_lent_bytes", "Bytes of bodies sent from memory without a copy.", |s| &s.lent_bytes),
    ("ron_verify_sends", "Bodies hashed again when they were sent.", |s| &s.verify_sends),
    ("ron_verify_send_failures", "Those that failed.", |s| &s.verify_send_failures),
    ("ron_integrity_fail", "Stored groups or outboards that failed.", |s| &s.integrity_fail),
    ("ron_mesh_hops", "Requests handed to the shard that owns the object.", |s| &s.mesh_hops),
    ("ron_syncs", "Syncs of the disk.", |s| &s.syncs),
    ("ron_sync_writes", "Writes made durable by those syncs.", |s| &s.sync_writes),
    ("ron_deletes", "Objects deleted.", |s| &s.deletes),
    ("ron_compactions", "Segments given back by compaction.", |s| &s.compactions),
    ("ron_compact_moved_bytes", "Bytes compaction moved.", |s| &s.compact_moved_bytes),
    ("ron_compact_freed_bytes", "Bytes compaction gave back.", |s| &s.compact_freed_bytes),
    ("ron_scrub_bytes", "Bytes the scrub read.", |s| &s.scrub_bytes),
    ("ron_scrub_objects", "Objects the scrub looked at.", |s| &s.scrub_objects),
    ("ron_scrub_rounds", "Rounds of shards' scrubs that came to their end.", |s| &s.scrub_rounds),
    ("ron_scrub_repaired", "Damaged objects the scrub repaired.", |s| &s.scrub_repaired),
    ("ron_damaged_objects", "Objects found damaged, by any reader.", |s| &s.damaged_objects),
];

/// Gauges that are one number a shard.
const GAUGES: [(&str, &str, Pick); 14] = [
    ("ron_damaged_objects_known", "Objects known to be damaged now.", |s| &s.damaged_now),
    ("ron_inflight", "Requests in progress.", |s| &s.inflight),
    ("ron_connection_buffer_bytes", "Bytes that connections buffer.", |s| {
        &s.connection_buffer_bytes
    }),
    ("ron_open_streams", "OAP streams in progress.", |s| &s.open_streams),
    ("ron_cache_bytes", "Bytes of verified groups held in memory.", |s| &s.cache_bytes),
    ("ron_objects", "Objects stored.", |s| &s.objects),
    ("ron_object_bytes", "Bytes of the objects stored, without overhead.", |s| &s.object_bytes),
    ("ron_storage_segment_bytes", "Bytes of the segment files.", |s| &s.segment_bytes),
    ("ron_storage_segment_live_bytes", "Bytes of the records in them that count.", |s| {
        &s.segment_live_bytes
    }),
    ("ron_storage_segments", "Segment files.", |s| &s.segments),
    ("ron_storage_file_bytes", "Bytes of objects in files of their own.", |s| &s.file_bytes),
    ("ron_index_bytes", "Bytes of memory of the index.", |s| &s.index_bytes),
    ("ron_index_limit_bytes", "Bytes of memory that the index may take.", |s| &s.index_limit_bytes),
    ("ron_scrub_running", "Shards whose scrub is running.", |s| &s.scrub_running),
];

type PickOf = fn(&Stats, usize) -> &Counter;

impl Source {
    fn measure_loads(&self) {
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        for (load, stats) in loads.iter_mut().zip(&self.stats) {
            *load = load.next(stats);
        }
    }

    /// The sum over the shards. Sums wrap as their counters do.
    fn sum(&self, pick: impl Fn(&Stats) -> u64) -> u64 {
        self.stats.iter().fold(0, |sum, stats| sum.wrapping_add(pick(stats)))
    }

    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        self.write_requests(page)?;
        let bytes: [(&str, &str, PickOf); 2] = [
            ("ron_bytes_in", "Bytes received.", |s, at| &s.bytes_in[at]),
            ("ron_bytes_out", "Bytes sent.", |s, at| &s.bytes_out[at]),
        ];
        for (name, help, pick) in bytes {
            page.counters(name, help, self.by_proto(pick))?;
        }
        let connections = self.by_proto(|s, at| &s.connections[at]);
        page.gauges("ron_connections", "Connections open.", connections)?;
        let rejected = Rejected::ALL.map(|why| {
            ([("reason", why.name().to_owned())], self.sum(|stats| stats.rejected(why)))
        });
        page.counters("ron_rejected", "Connections and requests turned away.", rejected)?;
        let copies = Encoded::ALL.map(|encoded| {
            let sum = self.sum(|stats| stats.encoded(encoded).get());
            ([("encoding", encoded.name().to_owned())], sum)
        });
        page.counters("ron_precompressed_served", "Answers with an encoded copy.", copies)?;
        for (name, help, pick) in COUNTERS {
            page.counters(name, help, [([], self.sum(|stats| pick(stats).get()))])?;
        }
        for (name, help, pick) in GAUGES {
            page.gauges(name, help, [([], self.sum(|stats| pick(stats).get()))])?;
        }
        let pages = Owner::ALL.map(|owner| {
            let pages = self.sum(|stats| stats.memory_pages[owner as usize].get());
            ([("owner", owner.name().to_owned())], pages)
        });
        page.gauges("ron_memory_pages", "Pages of 4 KiB of the cache's memory, by holder.", pages)?;
        self.write_memory(page)?;
        self.write_storage(page)?;
        self.write_names(page)?;
        let reports = self.sum(|stats| stats.reports_dropped.get());
        let dropped = [([], reports.wrapping_add(self.bus.missed()))];
        page.counters(
            "ron_bus_overflow_dropped",
            "Reports and events lost to full queues.",
            dropped,
        )?;
        let help = "Lines of the log lost because standard error did not take them.";
        page.counters("ron_log_lines_dropped", help, [([], logging::dropped())])?;
        self.write_shards(page)?;
        page.info(
            "ron_build",
            "Version and commit of this node.",
            &[("version", self.build.version), ("commit", self.build.commit)],
        )?;
        self.write_reload(page)
    }

    fn write_reload(&self, page: &mut Page<'_>) -> fmt::Result {
        if let Some(not_after) = self.reload.tls_not_after() {
            let help = "When the serving certificate ends, in seconds since 1970.";
            page.gauges("ron_tls_certificate_not_after_seconds", help, [([], not_after)])?;
        }
        let help = "Whether the last reload of the settings was applied; 1 after a start.";
        let success = u64::from(self.reload.succeeded());
        page.gauges("ron_config_last_reload_success", help, [([], success)])?;
        let help = "When settings were last applied, in seconds since 1970.";
        let applied = self.reload.applied_unix_s();
        page.gauges("ron_config_last_reload_timestamp_seconds", help, [([], applied)])
    }

    /// What the node may take of memory, and what the process takes of the system.
    fn write_memory(&self, page: &mut Page<'_>) -> fmt::Result {
        if let Some(bill) = self.bill.get() {
            let lines = bill.iter().map(|(what, len)| ([("what", (*what).to_owned())], *len));
            page.gauges("ron_memory_bill_bytes", "Bytes that may be in use, by what for.", lines)?;
        }
        let process = Process::look();
        for (name, help, value) in process.gauges() {
            if let Some(value) = value {
                page.gauges(name, help, [([], value)])?;
            }
        }
        let resident = process.resident_by_kind();
        let resident = resident.map(|(kind, len)| ([("kind", kind.to_owned())], len));
        page.gauges("ron_resident_memory_bytes", "Resident memory, by its kind.", resident)
    }

    /// What is no sum over the shards, or is one by state.
    fn write_storage(&self, page: &mut Page<'_>) -> fmt::Result {
        let total = Figures::total(&self.stats);
        if let Some(free) = total.disk_free_bytes {
            let help = "Bytes free on the fullest of the volumes.";
            page.gauges("ron_storage_disk_free_bytes", help, [([], free)])?;
        }
        if let Some(set_aside) = self.set_aside.get() {
            let help = "Bytes set aside for uploads and not yet written.";
            page.gauges("ron_storage_promised_bytes", help, [([], set_aside.bytes())])?;
        }
        if let Some(finished) = total.scrub.finished_unix_s {
            let help = "End of the last round of the scrub, in seconds since 1970.";
            page.gauges("ron_scrub_finished_timestamp_seconds", help, [([], finished)])?;
        }
        let states = [
            ("full", total.partitions_full),
            ("read_only", total.partitions_read_only),
            ("absent", total.partitions_absent),
        ];
        let states = states.map(|(state, count)| ([("state", state.to_owned())], count));
        page.gauges("ron_partitions", "Partitions that cannot do all they should.", states)
    }

    fn write_names(&self, page: &mut Page<'_>) -> fmt::Result {
        if let Some(table) = self.names.get().map(|names| names.table()) {
            page.gauges(
                "ron_names",
                "Names given to bundles and objects.",
                [([], table.len() as u64)],
            )?;
            let help = "Bytes of memory that the names take.";
            page.gauges("ron_names_bytes", help, [([], table.memory_len() as u64)])?;
        }
        let versions = self.stats.iter().enumerate();
        let versions =
            versions.map(|(at, stats)| ([("shard", at.to_string())], stats.names_version.get()));
        page.gauges("ron_names_version", "Version of the names that a shard has.", versions)
    }

    fn by_proto(&self, pick: PickOf) -> [([(&'static str, String); 1], u64); 3] {
        Proto::ALL.map(|proto| {
            let sum = self.sum(|stats| pick(stats, proto as usize).get());
            ([("proto", proto.name().to_owned())], sum)
        })
    }

    /// Requests and their times. Only combinations that occurred are written: most never do.
    fn write_requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let kinds = || Proto::ALL.into_iter().flat_map(|proto| Op::ALL.map(|op| (proto, op)));
        let mut requests = Vec::new();
        for (proto, op) in kinds() {
            for at in 0..CODES.len() {
                let count = self.sum(|stats| stats.requests(proto, op, at));
                if count > 0 {
                    requests.push((request_labels(proto, op, Some(at)), count));
                }
            }
        }
        page.counters("ron_requests", "Requests answered.", requests)?;
        let mut times = Vec::new();
        for (proto, op) in kinds() {
            let buckets: Vec<u64> = (0..=SECONDS_BUCKETS_US.len())
                .map(|at| self.sum(|stats| stats.times(proto, op).buckets[at].get()))
                .collect();
            if buckets.iter().any(|count| *count > 0) {
                let sum_ns = self.sum(|stats| stats.times(proto, op).sum_ns.get());
                times.push((request_labels(proto, op, None), buckets, sum_ns));
            }
        }
        page.histograms("ron_request_seconds", "Time from a request's head to its end.", &times)
    }

    fn write_shards(&self, page: &mut Page<'_>) -> fmt::Result {
        let shard = |at: usize| [("shard", at.to_string())];
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ratios = loads.iter().enumerate().map(|(at, load)| (shard(at), load.ratio));
        let help = "Share of the time since the last scrape that the loop was awake.";
        page.gauges("ron_shard_busy_ratio", help, ratios)?;
        let stalls = self.stats.iter().enumerate();
        let stalls = stalls.map(|(at, stats)| (shard(at), seconds(stats.stall_max_ns.get())));
        page.gauges("ron_shard_stall_seconds", "Longest single turn of the loop so far.", stalls)?;
        let mut counts = Vec::new();
        for (at, stats) in self.stats.iter().enumerate() {
            for work in Work::ALL {
                let labels = [("shard", at.to_string()), ("what", work.name().to_owned())];
                let count = stats.watch.stalls(work);
                counts.extend((count > 0).then_some((labels, count)));
            }
        }
        let help = "Steps that held a shard longer than the limit.";
        page.counters("ron_shard_stalls", help, counts)
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Labels of a request; the code is that at a position of `CODES`.
fn request_labels(proto: Proto, op: Op, code_at: Option<usize>) -> Vec<(&'static str, String)> {
    let mut labels = vec![("proto", proto.name().to_owned()), ("op", op.name().to_owned())];
    if let Some(at) = code_at {
        let other = at == CODES.len() - 1;
        labels.push(("code", if other { "other".to_owned() } else { CODES[at].to_string() }));
    }
    labels
}

#[derive(Debug)]
struct Written {
    source: Arc<Source>,
    form: Form,
}

impl Collector for Written {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.source.write(&mut Page { encoder, form: self.form })
    }
}

/// One family after another, each in the form of the page.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
    form: Form,
}

type Labels = (&'static str, String);

impl Page<'_> {
    /// A counter whose samples are called `<name>_total`.
    fn counters<L: AsRef<[Labels]>>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let total = format!("{name}_total");
        let family = if self.form == Form::Open { name } else { &total };
        let mut metric = self.encoder.encode_descriptor(family, help, None, MetricType::Counter)?;
        let form = self.form;
        for (labels, value) in samples {
            sample(&mut metric, labels.as_ref(), |metric| match form {
                Form::Open => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
                // The encoder would append a second `_total` to the classic name.
                Form::Classic => metric.encode_gauge(&value),
            })?;
        }
        Ok(())
    }

    fn gauges<L: AsRef<[Labels]>, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            sample(&mut metric, labels.as_ref(), |metric| metric.encode_gauge(&value))?;
        }
        Ok(())
    }

    /// A constant 1 called `<name>_info`, with its facts as labels.
    fn info(&mut self, name: &str, help: &str, facts: &[(&str, &str)]) -> fmt::Result {
        match self.form {
            Form::Open => {
                let mut metric =
                    self.encoder.encode_descriptor(name, help, None, MetricType::Info)?;
                metric.encode_info(&facts)
            }
            Form::Classic => {
                let name = format!("{name}_info");
                let mut metric =
                    self.encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
                metric.encode_family(&facts)?.encode_gauge(&1u64)
            }
        }
    }

    /// Histograms over the buckets of `SECONDS_BUCKETS_US`, with their sums in nanoseconds.
    fn histograms(
        &mut self,
        name: &str,
        help: &str,
        samples: &[(Vec<Labels>, Vec<u64>, u64)],
    ) -> fmt::Result {
        let bounds = SECONDS_BUCKETS_US.iter().map(|us| *us as f64 / 1e6);
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, counts, sum_ns) in samples {
            let labels = labels.as_slice();
            let buckets: Vec<(f64, u64)> =
                bounds.iter().copied().zip(counts.iter().copied()).collect();
            // The count is that of the buckets, so that the two agree while requests go on.
            let count = counts.iter().sum();
            let mut sample = metric.encode_family(&labels)?;
            sample.encode_histogram::<NoLabelSet>(seconds(*sum_ns), count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Writes one sample of a family; without labels it has no braces either.
fn sample(
    family: &mut MetricEncoder<'_>,
    labels: &[Labels],
    write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() {
        return write(family);
    }
    write(&mut family.encode_family(&labels)?)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
