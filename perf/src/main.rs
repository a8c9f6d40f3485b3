//! `ron-perf`: load for servers of content, measured.

use std::{
    error::Error,
    fs,
    io::{self, IsTerminal, Read, Write},
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};
use ron_perf::{
    compare, files,
    load::{self, Report, RunError, options::Options},
    objects::{ClassSpec, parse_size},
    pauses::Pauses,
    respond::Responder,
    storage::{self, Load, LoadError, Outcome, Verb},
};
use serde_json::{Value, json};

/// Something could not be measured, or not begun.
const EXIT_FAILED: u8 = 1;
/// Options that make no sense together.
const EXIT_USAGE: u8 = 2;
/// It was measured, and there were errors.
const EXIT_ERRORS: u8 = 3;

/// Largest document that is compared.
const DOCUMENT_LEN_MAX: u64 = 64 * 1024 * 1024;

/// Puts load on a server of content, and says how fast it was.
#[derive(Debug, Parser)]
#[command(name = "ron-perf", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load for any HTTP/1.1 server and for OAP/1, closed or open loop. Exit status: 0 good; 1 it
    /// could not run; 2 wrong usage; 3 there were errors, which are in the result.
    Load(Box<Options>),
    /// Write the objects of a load as DIR/o/b3:…, for other servers.
    Files {
        #[arg(long)]
        dir: PathBuf,
        #[arg(long, value_name = "SIZE[:COUNT[:WEIGHT]]", value_delimiter = ',', required = true)]
        objects: Vec<ClassSpec>,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Serve one answer made beforehand to every request, until killed or the input closes.
    Respond {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Length of the body.
        #[arg(long, value_parser = parse_size)]
        body: usize,
        #[arg(long)]
        tls: bool,
    },
    /// Put two documents of `load` side by side.
    Compare { a: PathBuf, b: PathBuf },
    /// Read the clock and nothing else, and say how long the machine made it wait: one JSON object.
    Pauses {
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
        seconds: u16,
    },
    /// Store objects that are not there yet.
    Put(StorageOptions),
    /// Fetch the objects that a `put` of the same size, count and seed has stored.
    Get {
        #[command(flatten)]
        options: StorageOptions,
        /// How often each object is fetched.
        #[arg(long, default_value_t = 1)]
        passes: u64,
        /// Hash what is fetched.
        #[arg(long)]
        verify: bool,
    },
}

#[derive(Debug, Args)]
struct StorageOptions {
    /// The node: http://HOST:PORT
    #[arg(long, value_parser = parse_node)]
    node: String,
    /// Length of each object, in bytes or with KiB, MiB or GiB.
    #[arg(long, value_parser = parse_size)]
    size: usize,
    /// Different objects.
    #[arg(long)]
    count: u64,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Chooses the objects: other seeds, other objects.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn parse_node(text: &str) -> Result<String, String> {
    let node = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    match node.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(node.to_string())
        }
        _ => Err("expected http://HOST:PORT".to_string()),
    }
}

fn load(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let report = match load::run(options) {
        Ok(report) => report,
        Err(RunError::Usage(error)) => {
            eprintln!("ron-perf: {error}");
            return Ok(ExitCode::from(EXIT_USAGE));
        }
        Err(error) => return Err(error.into()),
    };
    write_report(&report, options.json.as_deref())?;
    Ok(if report.errors() == 0 { ExitCode::SUCCESS } else { ExitCode::from(EXIT_ERRORS) })
}

/// The table goes where the document does not.
fn write_report(report: &Report, json: Option<&Path>) -> io::Result<()> {
    let mut line = report.json().to_string();
    line.push('\n');
    match json {
        Some(path) if path == Path::new("-") => {
            io::stdout().write_all(line.as_bytes())?;
            io::stderr().write_all(report.table().as_bytes())
        }
        Some(path) => {
            let named = |error| io::Error::other(format!("writing {}: {error}", path.display()));
            fs::write(path, line).map_err(named)?;
            io::stdout().write_all(report.table().as_bytes())
        }
        None => io::stdout().write_all(report.table().as_bytes()),
    }
}

fn respond(listen: SocketAddr, body: usize, tls: bool) -> Result<(), Box<dyn Error>> {
    let responder = Responder::bind(listen, body, tls)?;
    println!("listening on {}", responder.address());
    let stopper = Arc::new(responder.stopper()?);
    if input_may_close() {
        // It wakes nobody once it is dropped, so it must outlive the loop that it wakes.
        let stopper = Arc::clone(&stopper);
        // The thread waits for an input that may never close; it does not outlive the process.
        thread::spawn(move || {
            let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
            if ended.is_ok() {
                // If it cannot be woken, it can be killed.
                let _ = stopper.wake();
            }
        });
    }
    responder.run()?;
    drop(stopper);
    Ok(())
}

/// Whether somebody holds the other end of the input. Shells give background jobs one that has
/// ended from the start, which says nothing.
fn input_may_close() -> bool {
    let kind = fs::metadata("/proc/self/fd/0").map(|input| input.file_type());
    io::stdin().is_terminal() || kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket())
}

fn read_document(path: &Path) -> Result<Value, Box<dyn Error>> {
    let named = |error: &dyn Error| format!("{}: {error}", path.display());
    let file = fs::File::open(path).map_err(|error| named(&error))?;
    let mut text = Vec::new();
    file.take(DOCUMENT_LEN_MAX).read_to_end(&mut text).map_err(|error| named(&error))?;
    Ok(serde_json::from_slice(&text).map_err(|error| named(&error))?)
}

fn pauses(seconds: u16) {
    let seen = Pauses::watch(Duration::from_secs(u64::from(seconds)));
    let us = |time: Duration| time.as_micros() as u64;
    let line = json!({
        "p99_us": us(seen.quantile(0.99)),
        "p999_us": us(seen.quantile(0.999)),
        "max_us": us(seen.longest()),
        "share": seen.share(),
    });
    println!("{line}");
}

fn print_storage(verb: Verb, options: &StorageOptions, outcome: &Outcome) {
    let verb = if verb == Verb::Put { "put" } else { "get" };
    let us = |share| outcome.quantile(share).as_micros() as u64;
    if options.json {
        let line = json!({
            "verb": verb,
            "size": options.size,
            "connections": options.connections,
            "requests": outcome.requests,
            "bytes": outcome.bytes,
            "seconds": outcome.took.as_secs_f64(),
            "mib_per_s": outcome.mib_per_s(),
            "rps": outcome.requests_per_s(),
            "p50_us": us(0.5),
            "p99_us": us(0.99),
            "max_us": us(1.0),
        });
        println!("{line}");
    } else {
        println!(
            "{verb}: {} requests, {:.0} MiB/s, {:.0} requests/s, p50 {} µs, p99 {} µs, max {} µs",
            outcome.requests,
            outcome.mib_per_s(),
            outcome.requests_per_s(),
            us(0.5),
            us(0.99),
            us(1.0),
        );
    }
}

fn storage(
    verb: Verb,
    options: &StorageOptions,
    passes: u64,
    verify: bool,
) -> Result<(), LoadError> {
    let load = Load {
        node: options.node.clone(),
        verb,
        size: options.size,
        count: options.count,
        passes,
        connections: usize::from(options.connections),
        seed: options.seed,
        verify,
    };
    print_storage(verb, options, &storage::run(&load)?);
    Ok(())
}

fn perform(cli: Cli) -> Result<ExitCode, Box<dyn Error>> {
    match cli.command {
        Command::Load(options) => return load(&options),
        Command::Files { dir, objects, seed } => {
            println!("{} files", files::write(&dir, &objects, seed)?);
        }
        Command::Respond { listen, body, tls } => respond(listen, body, tls)?,
        Command::Compare { a, b } => {
            print!("{}", compare::table(&read_document(&a)?, &read_document(&b)?));
        }
        Command::Pauses { seconds } => pauses(seconds),
        Command::Put(options) => storage(Verb::Put, &options, 1, false)?,
        Command::Get { options, passes, verify } => {
            storage(Verb::Get, &options, passes, verify)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    match perform(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ron-perf: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_storage_are_read_or_refused() {
        assert_eq!(parse_node("http://127.0.0.1:80/"), Ok("127.0.0.1:80".to_string()));
        assert!(parse_node("http://localhost").is_err() && parse_node("http://:1").is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
