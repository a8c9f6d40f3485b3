//! Names: what an operator has paths stand for, through the admin listener.

use std::io::Write;

use ron_codec::{
    address::Address,
    http::response::{HTTP_DATE_LEN, write_http_date},
    name::NamePath,
};
use ron_control::{NameBody, NameChange, NameList, NameLog};
use serde::Serialize;

use super::{
    args::Shared,
    error::{AnswerFault, ClientError},
    http::{Condition, Http},
    name_args::{ChangeOptions, NameCommand},
    retry::{Wait, with_retries},
    stdout::{print, stdout_failed},
};

/// Does what the command says.
pub(super) fn run(
    shared: &Shared,
    command: &NameCommand,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let http = Http::from_args(shared, &shared.admin)?;
    match command {
        NameCommand::Set { path, address, options } => {
            let body = NameBody { address: address.to_string() };
            let body = serde_json::to_vec(&body).map_err(|error| stdout_failed(error.into()))?;
            let condition = condition(*options);
            let json = with_retries(wait, || http.set(&route(path), &body, condition))?;
            print_change(out, &json, shared.json, shared.quiet)?;
            warn_if_missing(shared, address)
        }
        NameCommand::Rm { path, options } => {
            let condition = condition(*options);
            let json = with_retries(wait, || http.unset(&route(path), condition))?;
            print_change(out, &json, shared.json, shared.quiet)
        }
        NameCommand::Ls { prefix } => list(&http, prefix, shared.json, out, wait),
        NameCommand::Log { limit } => log(&http, *limit, shared.json, out, wait),
    }
}

fn condition(options: ChangeOptions) -> Condition {
    match options.if_version {
        None => Condition::None,
        Some(0) => Condition::IsNew,
        Some(version) => Condition::Version(version),
    }
}

fn route(path: &NamePath) -> String {
    format!("/names{}", path.to_url_path())
}

fn print_change(
    out: &mut dyn Write,
    json: &[u8],
    as_json: bool,
    quiet: bool,
) -> Result<(), ClientError> {
    let change: NameChange = read(json)?;
    if change.served != Some(true) && !quiet {
        eprintln!("ronctl: the change is kept, but not every shard has it yet");
    }
    if as_json {
        return print_json(out, &change);
    }
    let NameChange { version, path, after, .. } = change;
    print(out, format_args!("{path} {} {version}", shown(after)))
}

/// A name may be given before its object is stored. That it is missing is most often a mistake.
fn warn_if_missing(shared: &Shared, address: &Address) -> Result<(), ClientError> {
    if shared.quiet {
        return Ok(());
    }
    match Http::from_args(shared, &shared.node)?.stat(address) {
        Ok(_) => {}
        Err(ClientError::NotFound { .. }) => {
            eprintln!("ronctl: warning: {} does not have {address}", shared.node);
        }
        Err(error) => {
            eprintln!("ronctl: warning: not known whether the node has {address}: {error}");
        }
    }
    Ok(())
}

fn list(
    http: &Http,
    prefix: &NamePath,
    as_json: bool,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let (mut all, mut after) = (Vec::new(), None::<NamePath>);
    let version = loop {
        let mut path = format!("/names?prefix={}", in_query(prefix));
        if let Some(after) = &after {
            path.push_str(&format!("&after={}", in_query(after)));
        }
        let page: NameList = read(&with_retries(wait, || http.report(&path))?)?;
        // A node that does not go on would be asked without end.
        if page.next.is_some() && page.next <= after {
            return Err(AnswerFault::Names.into());
        }
        if as_json {
            all.extend(page.names);
        } else {
            for name in page.names {
                print(out, format_args!("{} {} {}", name.path, name.address, name.version))?;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break page.version,
        }
    };
    if as_json { print_json(out, &NameList { version, names: all, next: None }) } else { Ok(()) }
}

/// A path as the value of a query has it.
fn in_query(path: &NamePath) -> String {
    path.to_url_path().replace('&', "%26").replace('+', "%2B")
}

fn log(
    http: &Http,
    limit: u64,
    as_json: bool,
    out: &mut dyn Write,
    wait: Wait<'_>,
) -> Result<(), ClientError> {
    let path = format!("/name-log?limit={limit}");
    let log: NameLog = read(&with_retries(wait, || http.report(&path))?)?;
    if as_json {
        return print_json(out, &log);
    }
    for NameChange { version, unix_ms, path, before, after, .. } in log.changes {
        let mut date = [0; HTTP_DATE_LEN];
        write_http_date(unix_ms / 1000, &mut date);
        let date = String::from_utf8_lossy(&date);
        print(out, format_args!("{version} {date} {path} {} -> {}", shown(before), shown(after)))?;
    }
    Ok(())
}

fn shown(address: Option<Address>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}

fn read<T: serde::de::DeserializeOwned>(json: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(json).map_err(|_| AnswerFault::Json { len: json.len() }.into())
}

fn print_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), ClientError> {
    let line = serde_json::to_string(value).map_err(|error| stdout_failed(error.into()))?;
    print(out, format_args!("{line}"))
}
