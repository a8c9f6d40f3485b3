//! The node: control plane and shards, started together and ended in order.
//!
//! ```text
//!   settings ► ring? ► memory bill ► listeners ► data directories ► certificates
//!            ► control thread ► a thread for each shard ► ready line … ► drain ► sync ► end
//! ```

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use ron_codec::address::Address;
use ron_control::{
    BuildInfo, Control, ControlConfig, Ending, NameStore, OrderPort, SetAside,
    limits::RELOAD_READ_MAX,
};
use ron_io::{
    lane::{Receiver, Sender, Waker, lane},
    ports::{Order, Report, ShardId},
    ring::{self, Certificates, Driver, Listener, Mailboxes},
    stats::{Phase, Stats},
};
use ron_shards::{
    cache,
    config::{Config as ShardConfig, Deadlines, Listener as Spoken, Storage},
    entropy::Secret,
    flow::Mail,
    limits::{MESH_LANE_LEN, ORDER_LANE_LEN, refused_max},
    names::Names,
    shard::Shard,
    store::{Accounts, layout::Layout},
};

use crate::{
    certs::{self, Identity},
    config::Config,
    failure::Failure,
    file_bill::{FileBill, Need},
    format::{DataDirs, Repaired},
    listeners::{Addresses, Listeners},
    machine::Machine,
    memory_bill::{MemoryBill, Plan},
    random,
    reload::{self, Fits, Identify, Settings},
};

/// Reports that may lie in the lane to the control plane.
const REPORTS_LEN: usize = 1024;

/// How much longer than its drain deadline a node may take to end.
const END_GRACE: Duration = Duration::from_secs(30);

/// How often is looked whether a shard hangs, after the drain.
const HUNG_LOOK_EVERY: Duration = Duration::from_millis(100);

/// The exit code of a node that ended because a shard hung: `EX_SOFTWARE` of sysexits.h.
pub const HUNG_EXIT_CODE: u8 = 70;

/// The event loop of a shard hangs. Nothing of the node can be ended in good order then; what was
/// acknowledged is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event loop of shard {shard} hangs: the node ends, to be started anew")]
pub struct Hung {
    pub shard: usize,
}

/// Runs a node until it is asked to end. `ready` gets what the ready line says once all
/// shards serve. `settings` reads the settings again, when a signal asks for it.
///
/// # Errors
/// What stood in the way, with the remedy where there is one.
pub fn run(
    config: &Config,
    machine: &Machine,
    settings: Settings,
    ready: impl FnOnce(&serde_json::Value),
) -> Result<(), Failure> {
    ring::check()?;
    ring::keep_freed_memory()?;
    let Prepared { listeners, data, layout, bill, files, need } = prepare(config, machine)?;
    let boot_id = u64::from_le_bytes(random::bytes()?);
    let identity = identity(config, &data)?;
    let tls_not_after = identity.as_ref().map(|identity| identity.not_after);
    let ca = identity.as_ref().and_then(|identity| identity.ca.clone());
    let certificates = identity.map(|identity| Certificates::new(identity.certificate));
    let (addresses, spoken) = (listeners.addresses.clone(), listeners.spoken());
    let (sockets, admin) = listeners.deal(config.shards(), certificates.as_ref())?;

    let stats: Vec<Arc<Stats>> = config.cores.iter().map(|_| Arc::default()).collect();
    stats.iter().for_each(|stats| stats.watch.set_limit(config.stall_limit));
    let waker = Arc::new(Waker::new()?);
    let (reports_in, reports) = lane(REPORTS_LEN, &waker);
    let (mailboxes, orders) = mailboxes(config.shards(), &reports_in)?;
    let checks = (identify(&data), fits(&data, machine, need));
    let reload = reload::reload(config.clone(), settings, certificates, checks);
    let accounts = Accounts::default();
    let store = Arc::new(names(config, &data)?);
    let names = Names::new(store.table());
    let control = ron_control::start(ControlConfig {
        listener: admin,
        stats: stats.clone(),
        clients: config.clients(),
        reports,
        waker,
        orders,
        partitions: data.partitions() as u16,
        authority: config.authority(),
        write_tokens: reload::write_tokens(config),
        reload,
        reload_read_max: RELOAD_READ_MAX,
        build: build(),
        tls_not_after,
        hang_limit: config.hang_limit,
        set_aside: set_aside(&accounts),
        scrubs: config.storage.scrub_bytes_per_s > 0,
        names: store,
        memory_bill: bill.lines.iter().map(|line| (line.what, line.len)).collect(),
        signals: true,
    })?;
    let settings = |shard| {
        Ok(ShardConfig {
            boot_id,
            seed: u64::from_le_bytes(random::bytes()?),
            cache_secret: Secret::from_bytes(random::bytes()?),
            accounts: accounts.clone(),
            names: names.clone(),
            ..shard_config(config, &files, shard, layout.clone(), spoken.clone())
        })
    };
    let ended = start_shards(config, settings, mailboxes, sockets, &stats)?;
    serve(config, &control, &ended, || {
        ready(&ready_line(config, &data, &addresses, ca.as_deref()));
    })?;
    control.shutdown()?;
    Ok(())
}

/// What a node has before anything of it runs: its sockets, its data directories, and the bills of
/// memory and open files that it keeps to.
struct Prepared {
    listeners: Listeners,
    data: DataDirs,
    layout: Layout,
    bill: MemoryBill,
    files: FileBill,
    /// What the process needed before it served.
    need: Need,
}

/// Binds the listeners and opens the data directories, if what they need fits the machine.
fn prepare(config: &Config, machine: &Machine) -> Result<Prepared, Failure> {
    // A directory may turn out to have more partitions; what does not fit without makes nothing.
    bill(config, config.partitions, machine)?;
    let need =
        Need::of_process(config.shards(), config.partitions as usize, config.connections_max);
    // A directory may turn out to have more partitions; without enough for these nothing is made.
    FileBill::new(&need)?;
    let listeners = Listeners::bind(config)?;
    let data = open_data(config)?;
    let layout = layout(config, &data)?;
    let bill = bill(config, data.partitions(), machine)?;
    tracing::info!("{bill}");
    let files = FileBill::new(&Need { partitions: data.partitions() as usize, ..need })?;
    files.log(config.connections_max);
    Ok(Prepared { listeners, data, layout, bill, files, need })
}

/// The free space that the shards of these accounts set aside.
fn set_aside(accounts: &Accounts) -> SetAside {
    let accounts = accounts.clone();
    SetAside::new(move || accounts.promised())
}

/// Opens the data directories, and says which are absent.
fn open_data(config: &Config) -> Result<DataDirs, Failure> {
    let data = DataDirs::open(&config.data_dirs, config.partitions)?;
    for absent in data.absent() {
        let (volume, why) = (absent.volume, &absent.why);
        tracing::warn!("volume {volume} is absent, and so is what it holds: {why}");
    }
    if data.created() {
        let paths = data.paths();
        tracing::warn!("a new, empty node was made in {paths:?}; is a disk not mounted?");
    }
    let (given, found) = (config.partitions, data.partitions());
    if config.partitions_given && given != found {
        tracing::warn!("partitions = {given} is without effect: the data directory has {found}");
    }
    for Repaired { path, failed } in data.repaired() {
        match failed {
            None => tracing::warn!("{path:?} was damaged or gone, and is made anew from its copy"),
            Some(why) => tracing::warn!("{path:?} is damaged or gone and not made anew: {why}"),
        }
    }
    for (partition, path) in data.lost() {
        tracing::error!("partition {partition} is absent, because its folder {path:?} is gone");
    }
    Ok(data)
}

/// Opens the names, which lie on the first volume. A node that cannot have them serves what it
/// stores all the same, if that is for want of the disk.
fn names(config: &Config, data: &DataDirs) -> Result<NameStore, Failure> {
    if data.first_present() != data.paths()[0] {
        let why = "the first data directory is absent".to_owned();
        tracing::error!("names are not known: {why}");
        return Ok(NameStore::unusable(why));
    }
    match NameStore::open(&data.paths()[0], config.names) {
        Ok(names) => Ok(names),
        Err(error) if error.is_no_space() => {
            tracing::error!("names are not known: {error}");
            Ok(NameStore::unusable("the disk of the first data directory is full".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// What the shards share out among each other.
fn layout(config: &Config, data: &DataDirs) -> Result<Layout, Failure> {
    let (shards, partitions) = (config.shards(), data.partitions());
    check_shards(shards, partitions, &data.paths()[0])?;
    Ok(Layout {
        volumes: data.paths().to_vec(),
        absent: data.absent().iter().map(|absent| absent.volume).collect(),
        lost: data.lost().map(|(partition, _)| partition).collect(),
        partitions: partitions as u16,
        shards: shards as u16,
    })
}

/// Whether so many shards can serve the data directories; `path` is the first of them.
fn check_shards(shards: usize, partitions: u32, path: &Path) -> Result<(), String> {
    if shards <= partitions as usize {
        return Ok(());
    }
    Err(format!(
        "{} was made with {partitions} partitions, which is the most shards that can serve it: \
         name at most {partitions} of the {shards} cores with --cores",
        path.display()
    ))
}

/// Looks at other settings as at those of a start: whether they fit memory, open files and data
/// directories. `need` is what the process needed before it served.
fn fits(data: &DataDirs, machine: &Machine, need: Need) -> Fits {
    let (machine, partitions) = (machine.clone(), data.partitions());
    let path = data.paths()[0].clone();
    Box::new(move |config| {
        check_shards(config.shards(), partitions, &path)?;
        bill(config, partitions, &machine).map_err(|error| error.to_string())?;
        let (shards, connections_max) = (config.shards(), config.connections_max);
        let need = Need { shards, partitions: partitions as usize, connections_max, ..need };
        FileBill::new(&need).map(drop).map_err(|error| error.to_string())
    })
}

/// Waits for the shards, says that the node is ready, and ends it when it is time.
fn serve(
    config: &Config,
    control: &Control,
    ended: &mpsc::Receiver<ShardId>,
    ready: impl FnOnce(),
) -> Result<(), Failure> {
    let ending = match control.wait_serving(config.shards()) {
        Ok(()) => {
            ready();
            control.wait()
        }
        Err(ending) => ending,
    };
    if let Ending::Hung { shard } = ending {
        return Err(Hung { shard }.into());
    }
    let drained = control.drain(config.deadlines.drain);
    wait_ended(config, control, ended)?;
    drained?;
    match ending {
        Ending::Hung { shard } => Err(Hung { shard }.into()),
        Ending::Asked => Ok(()),
        Ending::Crashed { service, reason } => Err(format!("{service} failed: {reason}").into()),
        Ending::ControlLost => Err("the control thread ended by itself".into()),
    }
}

/// Waits until every shard has ended. What a shard has left to write may take longer than the
/// drain; one that hangs does not get that time.
fn wait_ended(
    config: &Config,
    control: &Control,
    ended: &mpsc::Receiver<ShardId>,
) -> Result<(), Failure> {
    let drained = Instant::now() + config.deadlines.drain;
    let until = drained + END_GRACE;
    let mut left = config.shards();
    while left > 0 {
        let now = Instant::now();
        let next = if now < drained { drained } else { until.min(now + HUNG_LOOK_EVERY) };
        match ended.recv_timeout(next.saturating_duration_since(now)) {
            Ok(_) => left -= 1,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some(shard) = control.stalled() {
                    return Err(Hung { shard }.into());
                }
                if Instant::now() >= until {
                    return Err(format!("{left} shards did not end in time").into());
                }
            }
        }
    }
    Ok(())
}

/// Where the node can be reached, as it says when it is ready.
fn ready_line(
    config: &Config,
    data: &DataDirs,
    addresses: &Addresses,
    ca: Option<&Path>,
) -> serde_json::Value {
    let text = |address: Option<SocketAddr>| address.map(|address| address.to_string());
    let mut line = serde_json::json!({
        "event": "ready",
        "http": text(addresses.http),
        "https": text(addresses.https),
        "oap": text(addresses.oap),
        "admin": addresses.admin.to_string(),
        "ca": ca,
        "data_dir": data.paths()[0],
        "shards": config.shards(),
    });
    if data.paths().len() > 1 {
        line["data_dirs"] = serde_json::json!(data.paths());
    }
    if let Some(address) = text(addresses.oap_plain) {
        line["oap_plain"] = address.into();
    }
    line
}

/// Commands to try first on the node that said this line, each with what it does.
pub fn hints(ready: &serde_json::Value) -> Vec<String> {
    let Some(http) = ready["http"].as_str() else { return Vec::new() };
    let address = Address::of(b"hello\n");
    vec![
        format!("store an object:  echo hello | curl -sT - http://{http}/o/"),
        format!("fetch it again:   curl http://{http}/o/{address}"),
    ]
}

/// What the version command and the metrics show.
pub fn build() -> BuildInfo {
    BuildInfo { version: env!("CARGO_PKG_VERSION"), commit: env!("RON_COMMIT") }
}

fn bill(config: &Config, partitions: u32, machine: &Machine) -> Result<MemoryBill, Failure> {
    let plan = Plan {
        shards: config.shards(),
        partitions: u64::from(partitions),
        arena_len: config.arena_len(),
        cache_tables_len: (cache::memory_bill(config.arena_len() as usize)
            + if config.verify_sends { cache::seals_bill(config.arena_len() as usize) } else { 0 })
            as u64,
        connections_max: config.connections_max,
        tls: config.serves_tls(),
        connection_buffers_len: config.shard_buffers_len(),
        index_len: config.storage.index_len,
        names_len: config.names.memory_len(),
        lane_len: (MESH_LANE_LEN * size_of::<Mail>()) as u64,
    };
    Ok(MemoryBill::new(&plan, machine.memory_len)?)
}

/// The certificate, when a listener needs one.
fn identity(config: &Config, data: &DataDirs) -> Result<Option<Identity>, Failure> {
    if !config.serves_tls() {
        return Ok(None);
    }
    let dir = data.first_present();
    if config.tls.is_none() && dir != data.paths()[0] {
        let dir = dir.display();
        tracing::warn!("the development CA is that of {dir}: clients may know another");
    }
    let identity = identify(data)(config)?;
    if let Some(warning) = identity.ca_warning(data.created()) {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = &identity.warning {
        tracing::warn!("{warning}");
    }
    Ok(Some(identity))
}

/// How the certificate is read: from the operator's files, or made by the development CA.
fn identify(data: &DataDirs) -> Identify {
    let folder = data.first_present().join("tls");
    Box::new(move |config| match &config.tls {
        Some(files) => certs::from_files(&files.cert, &files.key),
        None => certs::development(&folder),
    })
}

/// Lanes from every shard and from control to every shard, and the ports control orders through.
#[allow(clippy::type_complexity)]
fn mailboxes(
    shards: usize,
    reports: &Sender<Report>,
) -> std::io::Result<(Vec<Mailboxes<Mail>>, Vec<OrderPort>)> {
    let wakers = (0..shards)
        .map(|_| Waker::new().map(Arc::new))
        .collect::<std::io::Result<Vec<Arc<Waker>>>>()?;
    let mut from: Vec<Vec<Receiver<Mail>>> = (0..shards).map(|_| Vec::new()).collect();
    let mut to: Vec<Vec<Option<Sender<Mail>>>> = (0..shards).map(|_| Vec::new()).collect();
    for (sender, lanes) in to.iter_mut().enumerate() {
        for reader in 0..shards {
            lanes.push((sender != reader).then(|| {
                let (into, out) = lane(MESH_LANE_LEN, &wakers[reader]);
                from[reader].push(out);
                into
            }));
        }
    }
    let mut orders: Vec<OrderPort> = Vec::new();
    for (from, waker) in from.iter_mut().zip(&wakers) {
        let (into, out) = lane(ORDER_LANE_LEN, waker);
        // The order to end always finds a place, whatever was ordered before.
        let (into_last, out_last) = lane(1, waker);
        from.extend([out, out_last]);
        orders.push(Box::new(move |order| {
            let into = if matches!(order, Order::Drain { .. }) { &into_last } else { &into };
            into.send(Mail::Order(order)).is_ok()
        }));
    }
    let mailboxes = wakers.into_iter().zip(from).zip(to).map(|((waker, from), to)| Mailboxes {
        waker,
        from,
        to,
        reports: reports.clone(),
    });
    Ok((mailboxes.collect(), orders))
}

fn shard_config(
    config: &Config,
    files: &FileBill,
    shard: ShardId,
    layout: Layout,
    listeners: Vec<Spoken>,
) -> ShardConfig {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let (deadlines, storage) = (&config.deadlines, &config.storage);
    ShardConfig {
        listeners,
        arena_len: config.arena_len() as usize,
        connections_max: files.connections_max,
        files_idle_max: files.files_idle_max,
        read_files_max: files.read_files_max,
        upload_files_max: files.upload_files_max,
        connections_per_peer: files.of(config.connections_per_peer, config.connections_max),
        connection_buffers: config.shard_buffers_len() as usize,
        object_len_max: config.object_len_max,
        window_groups: config.window_groups,
        verify_sends: config.verify_sends,
        enforce_payments: config.enforce_payments,
        authority: config.authority(),
        deadlines: Deadlines {
            handshake_ns: ns(deadlines.handshake),
            head_ns: ns(deadlines.head),
            idle_ns: ns(deadlines.idle),
            body_ns: ns(deadlines.body),
            body_rate: deadlines.body_rate,
            send_ns: ns(deadlines.send),
            stream_ns: ns(deadlines.stream),
            linger_ns: ns(deadlines.linger),
        },
        storage: Storage {
            max_bytes: storage.max_bytes,
            index_len: storage.index_len,
            reserve_bytes: storage.reserve_bytes,
            compact_below_percent: storage.compact_below_percent,
            scrub_bytes_per_s: storage.scrub_bytes_per_s_of(config.shards()),
            scrub_every_ms: u64::try_from(storage.scrub_every.as_millis()).unwrap_or(u64::MAX),
        },
        ..ShardConfig::new(shard, layout)
    }
}

/// Starts the threads of all shards, each with settings of its own. Returns where each says that it
/// has ended.
fn start_shards(
    config: &Config,
    settings: impl Fn(ShardId) -> Result<ShardConfig, Failure>,
    mailboxes: Vec<Mailboxes<Mail>>,
    sockets: Vec<Vec<Listener>>,
    stats: &[Arc<Stats>],
) -> Result<mpsc::Receiver<ShardId>, Failure> {
    let (ended_in, ended) = mpsc::channel();
    for ((shard, mailboxes), sockets) in (0..).map(ShardId).zip(mailboxes).zip(sockets) {
        let stats = Arc::clone(&stats[usize::from(shard.0)]);
        start_shard(config, settings(shard)?, sockets, mailboxes, stats, ended_in.clone())?;
    }
    Ok(ended)
}

/// Starts the thread of a shard. Whatever ends it, control and `ended` are notified.
fn start_shard(
    config: &Config,
    settings: ShardConfig,
    listeners: Vec<Listener>,
    mailboxes: Mailboxes<Mail>,
    stats: Arc<Stats>,
    ended: mpsc::Sender<ShardId>,
) -> std::io::Result<()> {
    let shard = settings.shard;
    let name = format!("ron-shard-{}", shard.0);
    // Beside all that are served and all that are refused with a reason, one more is still
    // accepted: the shard closes idle connections for it, or ends it at once.
    let connections_max = settings.connections_max + refused_max(settings.connections_max) + 1;
    let core = config.cores[usize::from(shard.0)];
    thread::Builder::new().name(name.clone()).spawn(move || {
        let reports = mailboxes.reports.clone();
        let driver = Driver {
            core: Some(core),
            name,
            listeners,
            connections_max,
            mailboxes,
            stats: Arc::clone(&stats),
        };
        let run = || driver.run(|| Shard::new(settings, Arc::clone(&stats)));
        let reason = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            // The panic hook has printed where and why.
            Err(_) => Some("its thread panicked".to_string()),
        };
        if let Some(reason) = reason {
            stats.set_phase(Phase::Failed);
            // A full lane means that control is not listening any more either.
            let _ = reports.send(Report::Stopped { shard, reason: Some(reason) });
        }
        // The only error is that nobody waits.
        let _ = ended.send(shard);
    })?;
    Ok(())
}
