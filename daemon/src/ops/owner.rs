//! Users and groups by name, as an image's own account files have them.

use std::io::{BufRead as _, BufReader, Read as _};

use anyhow::{Context as _, bail};
use kiln_snapshotter::{FsError, Owner, View};

/// An account file is foreign input; real ones are far smaller.
const MAX_ACCOUNT_FILE: u64 = 8 << 20;

/// A process's user, group and further groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) owner: Owner,
    /// All groups, the first one among them: a process that gives up its first group is not to
    /// lose what that grants.
    pub(crate) groups: Vec<u32>,
    /// The home directory; the root directory where the account file names none.
    pub(crate) home: String,
}

/// The lines of an account file, split at their colons; none if there is no such file.
fn records(view: &View, path: &str) -> anyhow::Result<Vec<Vec<String>>> {
    let file = match view.open(path) {
        Ok(file) => file,
        Err(FsError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for line in BufReader::new(file.take(MAX_ACCOUNT_FILE)).split(b'\n') {
        let line = line.with_context(|| path.to_owned())?;
        let line = String::from_utf8_lossy(&line);
        records.push(line.trim().split(':').map(str::to_owned).collect());
    }
    Ok(records)
}

fn field(record: &[String], index: usize) -> Option<&str> {
    record.get(index).map(String::as_str)
}

fn number(record: &[String], index: usize) -> Option<u32> {
    field(record, index)?.parse().ok()
}

/// The number of user `name`, and the group that the account file gives it, if it is known.
pub(crate) fn user(view: &View, name: &str) -> anyhow::Result<Option<Owner>> {
    let records = records(view, "/etc/passwd")?;
    let record = records.iter().find(|record| field(record, 0) == Some(name));
    Ok(record.and_then(|r| Some(Owner { uid: number(r, 2)?, gid: number(r, 3)? })))
}

/// The number of group `name`, if it is known.
pub(crate) fn group(view: &View, name: &str) -> anyhow::Result<Option<u32>> {
    let records = records(view, "/etc/group")?;
    let record = records.iter().find(|record| field(record, 0) == Some(name));
    Ok(record.and_then(|record| number(record, 2)))
}

/// Reads `USER`'s argument: `user[:group]`, each by name or number; empty is root.
pub(crate) fn identity(view: &View, spec: &str) -> anyhow::Result<Identity> {
    let (user_spec, group_spec) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let passwd = records(view, "/etc/passwd")?;
    let user_spec = if user_spec.is_empty() { "0" } else { user_spec };
    let by_name = passwd.iter().find(|record| field(record, 0) == Some(user_spec));
    let by_number = || {
        let uid: u32 = user_spec.parse().ok()?;
        let record = passwd.iter().find(|record| number(record, 2) == Some(uid));
        Some((uid, record))
    };
    let (uid, record) = match by_name {
        Some(record) => (number(record, 2), Some(record)),
        None => match by_number() {
            Some((uid, record)) => (Some(uid), record),
            None => bail!("unable to find user {user_spec}: no matching entries in passwd file"),
        },
    };
    let uid = uid.with_context(|| format!("user {user_spec} has no valid number"))?;
    if uid > i32::MAX as u32 {
        bail!("user id {uid} is out of range");
    }
    let name = record.and_then(|record| field(record, 0));
    let home = record.and_then(|record| field(record, 5)).filter(|home| !home.is_empty());
    let home = home.unwrap_or("/").to_owned();
    if let Some(group_spec) = group_spec.filter(|group| !group.is_empty()) {
        let gid = group(view, group_spec)?.or_else(|| group_spec.parse().ok());
        let gid = gid.with_context(|| {
            format!("unable to find group {group_spec}: no matching entries in group file")
        })?;
        return Ok(Identity { owner: Owner { uid, gid }, groups: vec![gid], home });
    }
    let gid = record.and_then(|record| number(record, 3)).unwrap_or(0);
    let mut groups = vec![gid];
    for record in records(view, "/etc/group")? {
        let mut members = field(&record, 3).unwrap_or_default().split(',');
        if let (Some(further), Some(name)) = (number(&record, 2), name)
            && further != gid
            && members.any(|member| member == name)
        {
            groups.push(further);
        }
    }
    Ok(Identity { owner: Owner { uid, gid }, groups, home })
}
