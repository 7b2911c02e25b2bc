//! Graphs, configs and refusals as text, without what differs from day to day and from machine to
//! machine.

use std::collections::HashMap;
use std::fmt::Write as _;

use kiln_integration_tests::{architecture, digest};
use kiln_proto::{gateway, pb, rpc};
use prost::Message as _;
use serde_json::Value;
use tonic::Status;

/// All graphs and configs of a result.
pub(crate) fn result(result: &gateway::Result) -> String {
    let text = match &result.result {
        Some(gateway::result::Result::Ref(one)) => {
            graph(one) + &config(result, "containerimage.config")
        }
        Some(gateway::result::Result::Refs(map)) => {
            let mut refs: Vec<_> = map.refs.iter().collect();
            refs.sort_by_key(|(platform, _)| platform.as_str());
            let part = |(platform, one): (&String, &gateway::Ref)| {
                let config = config(result, &format!("containerimage.config/{platform}"));
                format!("== {platform}\n{}{config}", graph(one))
            };
            refs.into_iter().map(part).collect()
        }
        other => panic!("a result of another kind: {other:?}"),
    };
    let host = architecture();
    text.replace(&format!("linux/{host}"), "linux/<host>")
        .replace(&format!("\"{host}\""), "\"<host>\"")
}

/// The vertices in order, each below those it needs.
fn graph(one: &gateway::Ref) -> String {
    let definition = one.def.clone().unwrap_or_default();
    let Some((_, ops)) = definition.def.split_last() else { return "scratch\n".to_owned() };
    let numbers: HashMap<String, usize> =
        ops.iter().enumerate().map(|(number, op)| (digest(op), number)).collect();
    let mut text = String::new();
    for (number, bytes) in ops.iter().enumerate() {
        let op = pb::Op::decode(bytes.clone()).expect("an op");
        let key = digest(bytes);
        let meta = definition.metadata.get(&key).cloned().unwrap_or_default();
        let name = meta.description.get("llb.customname").map_or("", String::as_str);
        let inputs: Vec<String> = op
            .inputs
            .iter()
            .map(|input| {
                let output =
                    if input.index == 0 { String::new() } else { format!(".{}", input.index) };
                format!("#{}{output}", numbers[&input.digest])
            })
            .collect();
        let _ = write!(text, "#{number} {}", without_digests(name));
        let _ = write!(text, "{}", lines(&definition, &key));
        if meta.ignore_cache {
            text.push_str(" (not from the cache)");
        }
        text.push('\n');
        let mut details = Vec::new();
        match op.op.expect("an operation") {
            pb::op::Op::Source(source) => self::source(&source, &mut details),
            pb::op::Op::Exec(exec) => self::exec(&exec, &inputs, &mut details),
            pb::op::Op::File(file) => self::file(&file, &inputs, &mut details),
            pb::op::Op::Merge(_) => details.push(format!("merge {}", inputs.join(" "))),
            other => details.push(format!("{other:?}")),
        }
        for detail in details {
            let _ = writeln!(text, "     {detail}");
        }
    }
    text
}

/// The lines of the Dockerfile that a vertex is from.
fn lines(definition: &pb::Definition, key: &str) -> String {
    let locations = definition.source.as_ref().and_then(|source| source.locations.get(key));
    let ranges = locations.iter().flat_map(|all| &all.locations).flat_map(|one| &one.ranges);
    let line = |at: Option<pb::Position>| at.unwrap_or_default().line;
    let starts: Vec<i32> = ranges.clone().map(|range| line(range.start)).collect();
    match (starts.first(), ranges.map(|range| line(range.end)).max()) {
        (Some(first), Some(last)) if *first == last => format!("  :{first}"),
        (Some(first), Some(last)) => format!("  :{first}-{last}"),
        _ => String::new(),
    }
}

fn without_digests(text: &str) -> String {
    match text.split_once("@sha256:") {
        Some((before, rest)) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            format!("{before}@<digest>{rest}")
        }
        None => text.to_owned(),
    }
}

fn source(source: &pb::SourceOp, details: &mut Vec<String>) {
    details.push(format!("source {}", without_digests(&source.identifier)));
    let mut attrs: Vec<_> = source.attrs.iter().collect();
    attrs.sort();
    details.extend(attrs.into_iter().map(|(name, value)| format!("{name}={value}")));
}

fn input(inputs: &[String], index: i64) -> &str {
    usize::try_from(index).ok().and_then(|index| inputs.get(index)).map_or("scratch", |i| i)
}

fn exec(exec: &pb::ExecOp, inputs: &[String], details: &mut Vec<String>) {
    let meta = exec.meta.clone().unwrap_or_default();
    details.push(format!("exec {:?}", meta.args));
    details.push(format!("cwd {} user {:?} env {:?}", meta.cwd, meta.user, meta.env));
    for (what, is_there) in [
        (format!("network {:?}", exec.network()), exec.network != 0),
        (format!("security {:?}", exec.security()), exec.security != 0),
        (format!("devices {:?}", exec.cdi_devices), !exec.cdi_devices.is_empty()),
        (format!("secrets in env {:?}", exec.secretenv), !exec.secretenv.is_empty()),
        (format!("hosts {:?}", meta.extra_hosts), !meta.extra_hosts.is_empty()),
        (format!("limits {:?}", meta.ulimit), !meta.ulimit.is_empty()),
        (format!("proxies {:?}", meta.proxy_env), meta.proxy_env.is_some()),
    ] {
        if is_there {
            details.push(what);
        }
    }
    for mount in &exec.mounts {
        let mut text = format!("mount {} {:?}", mount.dest, mount.mount_type());
        match mount.mount_type() {
            pb::MountType::Bind | pb::MountType::Cache => {
                let _ = write!(text, " of {}{}", input(inputs, mount.input), mount.selector);
            }
            _ => {}
        }
        if mount.readonly {
            text.push_str(" read-only");
        }
        if mount.output >= 0 {
            text.push_str(" is the result");
        }
        for option in [
            mount.tmpfs_opt.as_ref().map(|tmpfs| format!("{tmpfs:?}")),
            mount.cache_opt.as_ref().map(|cache| format!("{cache:?}")),
            mount.secret_opt.as_ref().map(|secret| format!("{secret:?}")),
            mount.ssh_opt.as_ref().map(|ssh| format!("{ssh:?}")),
        ] {
            text.extend(option.map(|option| format!(" {option}")));
        }
        details.push(text);
    }
}

fn file(file: &pb::FileOp, inputs: &[String], details: &mut Vec<String>) {
    use pb::file_action::Action;
    // Inputs beyond those of the vertex are what earlier actions made.
    let name = |index: i64| match usize::try_from(index) {
        Ok(index) if index >= inputs.len() => format!("action {}", index - inputs.len()),
        _ => input(inputs, index).to_owned(),
    };
    for one in &file.actions {
        let on = name(one.input);
        let text = match one.action.clone().expect("an action") {
            Action::Copy(mut copy) => {
                let (from, src) = (name(one.secondary_input), std::mem::take(&mut copy.src));
                let dest = std::mem::take(&mut copy.dest);
                let set = changed(&format!("{copy:?}"), &format!("{:?}", usual_copy()));
                format!("copy {from}:{src} to {dest} on {on} {set}")
            }
            Action::Mkfile(file) => {
                let content = String::from_utf8_lossy(&file.data).into_owned();
                format!("file {} {:o} on {on}: {content:?}", file.path, file.mode)
            }
            Action::Mkdir(dir) => format!(
                "folder {} {:o} on {on}, owner {:?}, time {}",
                dir.path, dir.mode, dir.owner, dir.timestamp
            ),
            other => format!("{other:?} on {on}"),
        };
        details.push(text.trim_end().to_owned());
    }
}

/// A copy without flags.
fn usual_copy() -> pb::FileActionCopy {
    pb::FileActionCopy {
        mode: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    }
}

/// The members of a printed message that differ from those of the usual one.
fn changed(message: &str, usual: &str) -> String {
    let members = |text: &str| -> Vec<String> {
        let inner = text.split_once("{ ").map_or("", |(_, inner)| inner);
        split_members(inner.strip_suffix(" }").unwrap_or(inner))
    };
    let usual = members(usual);
    let differing = members(message).into_iter().filter(|member| !usual.contains(member));
    differing.collect::<Vec<_>>().join(", ")
}

/// Splits at commas that are not inside brackets or quotes.
fn split_members(text: &str) -> Vec<String> {
    let (mut members, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' | '(' | '[' if !quoted => depth += 1,
            '}' | ')' | ']' if !quoted => depth -= 1,
            ',' if depth == 0 && !quoted => {
                members.push(String::new());
                continue;
            }
            _ => {}
        }
        members.last_mut().expect("a member").push(c);
    }
    members.into_iter().map(|member| member.trim().to_owned()).collect()
}

/// The config and the history of an image.
fn config(result: &gateway::Result, key: &str) -> String {
    let json = result.metadata.get(key).unwrap_or_else(|| panic!("no {key}"));
    let image: Value = serde_json::from_slice(json).expect("a config");
    let mut text = format!(
        "-- config {}/{}\n",
        image["os"].as_str().unwrap_or_default(),
        image["architecture"].as_str().unwrap_or_default()
    );
    let _ = writeln!(text, "{:#}", image["config"]);
    if image["author"].is_string() {
        let _ = writeln!(text, "author {}", image["author"]);
    }
    text.push_str("-- history\n");
    for entry in image["history"].as_array().into_iter().flatten() {
        let mark = if entry["empty_layer"] == true { " " } else { "+" };
        let _ = writeln!(text, "{mark} {}", entry["created_by"].as_str().unwrap_or("(base)"));
    }
    text
}

/// What is said of a Dockerfile that is refused, and of which lines.
pub(crate) fn refusal(file: &str, options: &[(&str, &str)], status: &Status) -> String {
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    let mut text = String::new();
    for line in file.lines() {
        let _ = writeln!(text, "| {line}");
    }
    for (name, value) in options {
        let _ = writeln!(text, "  with {name}={value}");
    }
    let _ = writeln!(text, "  {:?}: {}", status.code(), status.message());
    for detail in details {
        let kind = detail.type_url.rsplit('/').next().unwrap_or_default();
        if kind.starts_with("stack.Stack") {
            // Where it happened in the program is not what the language says.
            continue;
        }
        let value: Value = serde_json::from_slice(&detail.value).unwrap_or_default();
        let start = |range: &Value| range["start"]["line"].clone();
        match value["ranges"].as_array() {
            Some(ranges) => {
                let lines: Vec<Value> = ranges.iter().map(start).collect();
                let _ = writeln!(text, "  {kind}: lines {}", Value::Array(lines));
            }
            None => {
                let _ = writeln!(text, "  {kind}: {value}");
            }
        }
    }
    text.push('\n');
    text
}
