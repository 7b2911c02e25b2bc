//! A file op in the form that its digest is of. It is BuildKit's, member for member, so that what one
//! builder has copied is a hit for the other.
//!
//! BuildKit's form does not say what kind of action it is of. Where the members leave that open, one
//! more is added here: no key of BuildKit's is like it, and nothing is taken for what it is not.

use kiln_cache::Digest;
use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::user_opt::User;
use serde::Serialize;

use super::key::NONE;
use crate::graph::go_json::{self, bytes, is_empty};

/// The digest of actions as they are.
pub(super) fn digest(actions: &[pb::FileAction]) -> anyhow::Result<Digest> {
    let each = actions.iter().map(|action| Ok(bytes(&action_json(action)?)));
    let actions_json: Vec<String> = each.collect::<anyhow::Result<_>>()?;
    let indexes: Vec<[i64; 3]> =
        actions.iter().map(|it| [it.input, it.secondary_input, it.output]).collect();
    let indexes = if are_usual(&indexes) { Vec::new() } else { indexes };
    go_json::digest(&Canonical { kind: "buildkit.file.v0", actions: actions_json, indexes })
}

/// Whether the first action goes on from the first input, each other from the one before it, and
/// files come from the second input: then indexes are left out.
///
/// Where the first action of a chain is found in BuildKit's form is counted from the number of
/// actions, not of inputs. With the number of inputs, which every key has, it is still one thing.
fn are_usual(indexes: &[[i64; 3]]) -> bool {
    let count = indexes.len();
    let is_usual = |(position, &[input, secondary, output]): (usize, &[i64; 3])| {
        let before = if position == 0 { 0 } else { (count + position - 1) as i64 };
        let result = if position + 1 == count { 0 } else { NONE };
        input == before && (secondary == NONE || secondary == 1) && output == result
    };
    count > 0 && indexes.iter().enumerate().all(is_usual)
}

fn action_json(action: &pb::FileAction) -> anyhow::Result<Vec<u8>> {
    match &action.action {
        Some(Action::Copy(copy)) => {
            // From nothing, not from the second input.
            let kind = if action.secondary_input == NONE { "copy" } else { "" };
            go_json::to_vec(&Copy::of(copy, kind))
        }
        Some(Action::Mkfile(file)) => {
            // An empty one may be a directory as well.
            let kind = if file.data.is_empty() { "mkfile" } else { "" };
            go_json::to_vec(&New {
                path: &file.path,
                mode: file.mode,
                data: bytes(&file.data),
                make_parents: false,
                owner: file.owner.as_ref().map(Owner::from),
                timestamp: file.timestamp,
                kind,
            })
        }
        Some(Action::Mkdir(dir)) => {
            // Without permissions, it may be a removal as well.
            let kind = if dir.mode == 0 { "mkdir" } else { "" };
            go_json::to_vec(&New {
                path: &dir.path,
                mode: dir.mode,
                data: String::new(),
                make_parents: dir.make_parents,
                owner: dir.owner.as_ref().map(Owner::from),
                timestamp: dir.timestamp,
                kind,
            })
        }
        Some(Action::Rm(rm)) => go_json::to_vec(&Rm {
            path: &rm.path,
            allow_not_found: rm.allow_not_found,
            allow_wildcard: rm.allow_wildcard,
        }),
        Some(Action::Symlink(link)) => go_json::to_vec(&Symlink {
            oldpath: &link.oldpath,
            newpath: &link.newpath,
            owner: link.owner.as_ref().map(Owner::from),
            timestamp: link.timestamp,
        }),
        None => anyhow::bail!("file action without an action"),
    }
}

#[derive(Serialize)]
struct Canonical {
    #[serde(rename = "Type")]
    kind: &'static str,
    /// Each in JSON, as bytes.
    #[serde(rename = "Actions")]
    actions: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    indexes: Vec<[i64; 3]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Copy<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    src: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    dest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    mode: i32,
    #[serde(skip_serializing_if = "is_empty")]
    follow_symlink: bool,
    #[serde(skip_serializing_if = "is_empty")]
    dir_copy_contents: bool,
    #[serde(skip_serializing_if = "is_empty")]
    attempt_unpack_docker_compatibility: bool,
    #[serde(skip_serializing_if = "is_empty")]
    create_dest_path: bool,
    #[serde(skip_serializing_if = "is_empty")]
    allow_wildcard: bool,
    #[serde(skip_serializing_if = "is_empty")]
    allow_empty_wildcard: bool,
    #[serde(skip_serializing_if = "is_empty")]
    timestamp: i64,
    #[serde(rename = "include_patterns", skip_serializing_if = "is_empty")]
    include_patterns: &'a [String],
    #[serde(rename = "exclude_patterns", skip_serializing_if = "is_empty")]
    exclude_patterns: &'a [String],
    #[serde(skip_serializing_if = "is_empty")]
    always_replace_existing_dest_paths: bool,
    #[serde(skip_serializing_if = "is_empty")]
    mode_str: &'a str,
    #[serde(rename = "required_paths", skip_serializing_if = "is_empty")]
    required_paths: &'a [String],
    #[serde(skip_serializing_if = "is_empty")]
    kind: &'static str,
}

impl<'a> Copy<'a> {
    fn of(copy: &'a pb::FileActionCopy, kind: &'static str) -> Self {
        Self {
            src: &copy.src,
            dest: &copy.dest,
            owner: copy.owner.as_ref().map(Owner::from),
            mode: copy.mode,
            follow_symlink: copy.follow_symlink,
            dir_copy_contents: copy.dir_copy_contents,
            attempt_unpack_docker_compatibility: copy.attempt_unpack_docker_compatibility,
            create_dest_path: copy.create_dest_path,
            allow_wildcard: copy.allow_wildcard,
            allow_empty_wildcard: copy.allow_empty_wildcard,
            timestamp: copy.timestamp,
            include_patterns: &copy.include_patterns,
            exclude_patterns: &copy.exclude_patterns,
            always_replace_existing_dest_paths: copy.always_replace_existing_dest_paths,
            mode_str: &copy.mode_str,
            required_paths: &copy.required_paths,
            kind,
        }
    }
}

/// A file or a directory that is made: the members that a file has not are empty.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct New<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    mode: i32,
    #[serde(skip_serializing_if = "is_empty")]
    data: String,
    #[serde(skip_serializing_if = "is_empty")]
    make_parents: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    timestamp: i64,
    #[serde(skip_serializing_if = "is_empty")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rm<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    path: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    allow_not_found: bool,
    #[serde(skip_serializing_if = "is_empty")]
    allow_wildcard: bool,
}

#[derive(Serialize)]
struct Symlink<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    oldpath: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    newpath: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    timestamp: i64,
}

#[derive(Serialize)]
struct Owner<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Account<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Account<'a>>,
}

impl<'a> From<&'a pb::ChownOpt> for Owner<'a> {
    fn from(owner: &'a pb::ChownOpt) -> Self {
        let account = |account: &'a Option<pb::UserOpt>| account.as_ref().map(Account::from);
        Self { user: account(&owner.user), group: account(&owner.group) }
    }
}

/// A user or a group.
#[derive(Serialize)]
struct Account<'a> {
    #[serde(rename = "User")]
    by: By<'a>,
}

/// The name or the number; that of root is left out.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct By<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    by_name: Option<Named<'a>>,
    #[serde(skip_serializing_if = "is_empty")]
    by_id: u32,
}

#[derive(Serialize)]
struct Named<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "is_empty")]
    input: i64,
}

impl<'a> From<&'a pb::UserOpt> for Account<'a> {
    fn from(account: &'a pb::UserOpt) -> Self {
        let by = match &account.user {
            Some(User::ByName(named)) => {
                let by_name = Some(Named { name: &named.name, input: named.input });
                By { by_name, by_id: 0 }
            }
            Some(User::ById(id)) => By { by_name: None, by_id: *id },
            None => By::default(),
        };
        Self { by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(indexes: [i64; 3], action: Action) -> pb::FileAction {
        let [input, secondary_input, output] = indexes;
        pb::FileAction { input, secondary_input, output, action: Some(action) }
    }

    fn copy(src: &str) -> pb::FileActionCopy {
        pb::FileActionCopy {
            src: src.into(),
            dest: "/d/".into(),
            mode: -1,
            follow_symlink: true,
            dir_copy_contents: true,
            create_dest_path: true,
            allow_wildcard: true,
            allow_empty_wildcard: true,
            timestamp: -1,
            ..Default::default()
        }
    }

    fn copied(indexes: [i64; 3], src: &str) -> pb::FileAction {
        action(indexes, Action::Copy(copy(src)))
    }

    fn by_id(id: u32) -> pb::UserOpt {
        pb::UserOpt { user: Some(User::ById(id)) }
    }

    fn made(path: &str, mode: i32) -> (pb::FileActionMkFile, pb::FileActionMkDir) {
        let path = path.to_owned();
        let file = pb::FileActionMkFile { path: path.clone(), mode, ..Default::default() };
        (file, pb::FileActionMkDir { path, mode, ..Default::default() })
    }

    /// The digests that BuildKit 0.32.2 computes of the same ops.
    #[test]
    fn actions_have_the_digest_that_buildkit_gives_them() {
        let strings = |text: &str| vec![text.to_owned()];
        let named = pb::NamedUserOpt { name: "u".into(), input: 0 };
        let owned = pb::FileActionCopy {
            owner: Some(pb::ChownOpt {
                user: Some(pb::UserOpt { user: Some(User::ByName(named)) }),
                group: Some(by_id(0)),
            }),
            exclude_patterns: strings("*.md"),
            include_patterns: strings("*"),
            required_paths: strings("/a/x"),
            mode_str: "u+x".into(),
            attempt_unpack_docker_compatibility: true,
            always_replace_existing_dest_paths: true,
            ..copy("a")
        };
        let mkdir = pb::FileActionMkDir {
            make_parents: true,
            timestamp: -1,
            owner: Some(pb::ChownOpt { user: Some(by_id(5)), group: None }),
            ..made("/w", 0o755).1
        };
        let mkfile = pb::FileActionMkFile {
            data: b"x\n".to_vec().into(),
            timestamp: -1,
            ..made("/EOF", 0o644).0
        };
        let symlink = pb::FileActionSymlink {
            oldpath: "/a".into(),
            newpath: "/b".into(),
            timestamp: -1,
            owner: None,
        };
        let rm =
            pb::FileActionRm { path: "/a".into(), allow_not_found: true, allow_wildcard: true };
        for (name, actions, expected) in [
            (
                "a copy",
                vec![copied([0, 1, 0], "b")],
                "2491bcddca6821e2dcccce8a1f15e9ae4c95bb38b82169d16998a32228b7c221",
            ),
            (
                "a copy of a whole tree",
                vec![copied([0, 1, 0], "/")],
                "35e860c858b8414788cd541399b224001ff46400c69347726ab04f22455be85a",
            ),
            (
                "two copies",
                vec![copied([0, 1, -1], "a"), copied([2, 1, 0], "b")],
                "60230e8c8ff0d785df29343ac62d336b3da9ed9c3e94effdbe84814bad9efdd3",
            ),
            (
                "three copies",
                vec![copied([0, 1, -1], "a"), copied([2, 1, -1], "b"), copied([3, 1, 0], "c")],
                "52a278da83dd994f0b23199014b32f3c4522d746f56abb64eb4337f96e816db2",
            ),
            (
                "a copy with all that may be said of it",
                vec![action([0, 1, 0], Action::Copy(owned))],
                "fe3b87a26d4d68b37fc9edf86edcc61f3b37d9dedd605636a046cfabb494f334",
            ),
            (
                "a copy onto nothing",
                vec![copied([-1, 0, 0], "a")],
                "1d44db5f4a5d2246f1de063a9522c74fe0747a76fcc5395a35188700f3800662",
            ),
            (
                "a directory",
                vec![action([0, -1, 0], Action::Mkdir(mkdir))],
                "2ac25f0bfe243c05ae63f61c0c4a1128ed5ed3456ff849ee436c3946d6444587",
            ),
            (
                "a file",
                vec![action([-1, -1, 0], Action::Mkfile(mkfile))],
                "acc606e865b2ec556f65f1e3808deaee52ec6611414466f7db4b214acd94474b",
            ),
            (
                "a link",
                vec![action([0, -1, 0], Action::Symlink(symlink))],
                "23428530006dcd180b69e23c5636642e9a061d9ecec7683e15f433c7cec632b5",
            ),
            (
                "a removal",
                vec![action([0, -1, 0], Action::Rm(rm))],
                "099da61654c23e36716e080453c1d34c946c5072fdc7dc59131a25ce46972f85",
            ),
        ] {
            assert_eq!(
                digest(&actions).unwrap().to_string(),
                format!("sha256:{expected}"),
                "{name}"
            );
        }
    }

    #[test]
    fn actions_of_different_kinds_are_never_the_same() {
        let removal = Action::Rm(pb::FileActionRm { path: "/a".into(), ..Default::default() });
        let mut kinds = vec![removal];
        for mode in [0, 0o755] {
            let (file, dir) = made("/a", mode);
            kinds.extend([Action::Mkfile(file), Action::Mkdir(dir)]);
        }
        let of = |kind: Action| digest(&[action([0, -1, 0], kind)]).unwrap();
        let digests: std::collections::HashSet<_> = kinds.iter().cloned().map(of).collect();
        assert_eq!(digests.len(), kinds.len());
    }

    #[test]
    fn files_from_nowhere_are_not_those_of_an_input() {
        let of = |secondary| digest(&[copied([0, secondary, 0], "a")]).unwrap();
        assert_ne!(of(1), of(-1));
    }
}
