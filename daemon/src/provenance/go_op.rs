//! Ops as JSON, spelled as Go's `encoding/json` spells BuildKit's messages (moby/buildkit,
//! `solver/pb/json.go`): members that are empty, zero or false are left out, and enums are numbers.

use kiln_proto::pb;
use kiln_proto::pb::file_action::Action;
use kiln_proto::pb::op::Op;
use kiln_proto::pb::user_opt::User;
use serde_json::{Map, Value, json};

use crate::graph::go_json;

/// An object that has no empty members.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    /// A member that is left out if it says nothing.
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let is_empty = match &value {
            Value::Null => true,
            Value::Bool(it) => !it,
            Value::Number(it) => it.as_i64() == Some(0),
            Value::String(it) => it.is_empty(),
            Value::Array(it) => it.is_empty(),
            Value::Object(it) => it.is_empty(),
        };
        if !is_empty {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    /// A member that is an object of its own, which is there even if it says nothing.
    fn with_object<T>(mut self, name: &str, value: Option<&T>, to_json: fn(&T) -> Value) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), to_json(value));
        }
        self
    }

    fn done(self) -> Value {
        Value::Object(self.0)
    }
}

fn list<T>(items: &[T], to_json: fn(&T) -> Value) -> Value {
    items.iter().map(to_json).collect()
}

/// An op, without its inputs.
pub(super) fn op(op: &pb::Op) -> Value {
    let kind = match &op.op {
        None => Object::default(),
        Some(Op::Exec(it)) => Object::default().with_object("exec", Some(it), exec),
        Some(Op::Source(it)) => Object::default().with_object("source", Some(it), source),
        Some(Op::File(it)) => Object::default().with_object("file", Some(it), file),
        Some(Op::Build(it)) => Object::default().with_object("build", Some(it), build),
        Some(Op::Merge(it)) => Object::default().with_object("merge", Some(it), merge),
        Some(Op::Diff(it)) => Object::default().with_object("diff", Some(it), diff),
        Some(Op::Passthrough(it)) => {
            Object::default().with_object("passthrough", Some(it), passthrough)
        }
    };
    let mut object = Object::default();
    object.0.insert("Op".to_owned(), kind.done());
    object
        .with_object("platform", op.platform.as_ref(), platform)
        .with_object("constraints", op.constraints.as_ref(), |it| {
            Object::default().with("filter", it.filter.clone()).done()
        })
        .done()
}

fn platform(it: &pb::Platform) -> Value {
    Object::default()
        .with("Architecture", it.architecture.clone())
        .with("OS", it.os.clone())
        .with("Variant", it.variant.clone())
        .with("OSVersion", it.os_version.clone())
        .with("OSFeatures", it.os_features.clone())
        .done()
}

fn source(it: &pb::SourceOp) -> Value {
    let attrs: Map<String, Value> =
        it.attrs.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    Object::default().with("identifier", it.identifier.clone()).with("attrs", attrs).done()
}

fn exec(it: &pb::ExecOp) -> Value {
    Object::default()
        .with_object("meta", it.meta.as_ref(), meta)
        .with("mounts", list(&it.mounts, mount))
        .with("network", it.network)
        .with("security", it.security)
        .with(
            "secretenv",
            list(&it.secretenv, |it| {
                Object::default()
                    .with("ID", it.id.clone())
                    .with("name", it.name.clone())
                    .with("optional", it.optional)
                    .done()
            }),
        )
        .with(
            "cdiDevices",
            list(&it.cdi_devices, |it| {
                Object::default().with("name", it.name.clone()).with("optional", it.optional).done()
            }),
        )
        .done()
}

fn meta(it: &pb::Meta) -> Value {
    Object::default()
        .with("args", it.args.clone())
        .with("env", it.env.clone())
        .with("cwd", it.cwd.clone())
        .with("user", it.user.clone())
        .with_object("proxy_env", it.proxy_env.as_ref(), |it| {
            Object::default()
                .with("http_proxy", it.http_proxy.clone())
                .with("https_proxy", it.https_proxy.clone())
                .with("ftp_proxy", it.ftp_proxy.clone())
                .with("no_proxy", it.no_proxy.clone())
                .with("all_proxy", it.all_proxy.clone())
                .done()
        })
        .with(
            "extraHosts",
            list(&it.extra_hosts, |it| {
                Object::default().with("Host", it.host.clone()).with("IP", it.ip.clone()).done()
            }),
        )
        .with("hostname", it.hostname.clone())
        .with(
            "ulimit",
            list(&it.ulimit, |it| {
                Object::default()
                    .with("Name", it.name.clone())
                    .with("Soft", it.soft)
                    .with("Hard", it.hard)
                    .done()
            }),
        )
        .with("cgroupParent", it.cgroup_parent.clone())
        .with("removeMountStubsRecursive", it.remove_mount_stubs_recursive)
        .with("validExitCodes", it.valid_exit_codes.clone())
        .done()
}

fn mount(it: &pb::Mount) -> Value {
    Object::default()
        .with("input", it.input)
        .with("selector", it.selector.clone())
        .with("dest", it.dest.clone())
        .with("output", it.output)
        .with("readonly", it.readonly)
        .with("mountType", it.mount_type)
        .with_object("TmpfsOpt", it.tmpfs_opt.as_ref(), |it| {
            Object::default().with("size", it.size).done()
        })
        .with_object("cacheOpt", it.cache_opt.as_ref(), |it| {
            Object::default().with("ID", it.id.clone()).with("sharing", it.sharing).done()
        })
        .with_object("secretOpt", it.secret_opt.as_ref(), |it| {
            access(&it.id, it.uid, it.gid, it.mode, it.optional)
        })
        .with_object("SSHOpt", it.ssh_opt.as_ref(), |it| {
            access(&it.id, it.uid, it.gid, it.mode, it.optional)
        })
        .with("resultID", it.result_id.clone())
        .with("contentCache", it.content_cache)
        .done()
}

fn access(id: &str, uid: u32, gid: u32, mode: u32, optional: bool) -> Value {
    Object::default()
        .with("ID", id)
        .with("uid", uid)
        .with("gid", gid)
        .with("mode", mode)
        .with("optional", optional)
        .done()
}

fn file(it: &pb::FileOp) -> Value {
    Object::default().with("actions", list(&it.actions, file_action)).done()
}

fn file_action(it: &pb::FileAction) -> Value {
    let action = match &it.action {
        None => Object::default(),
        Some(Action::Copy(it)) => Object::default().with_object("copy", Some(it), copy),
        Some(Action::Mkfile(it)) => Object::default().with_object("mkfile", Some(it), |it| {
            Object::default()
                .with("path", it.path.clone())
                .with("mode", it.mode)
                .with("data", go_json::bytes(&it.data))
                .with_object("owner", it.owner.as_ref(), owner)
                .with("timestamp", it.timestamp)
                .done()
        }),
        Some(Action::Mkdir(it)) => Object::default().with_object("mkdir", Some(it), |it| {
            Object::default()
                .with("path", it.path.clone())
                .with("mode", it.mode)
                .with("makeParents", it.make_parents)
                .with_object("owner", it.owner.as_ref(), owner)
                .with("timestamp", it.timestamp)
                .done()
        }),
        Some(Action::Rm(it)) => Object::default().with_object("rm", Some(it), |it| {
            Object::default()
                .with("path", it.path.clone())
                .with("allowNotFound", it.allow_not_found)
                .with("allowWildcard", it.allow_wildcard)
                .done()
        }),
        Some(Action::Symlink(it)) => Object::default().with_object("symlink", Some(it), |it| {
            Object::default()
                .with("oldpath", it.oldpath.clone())
                .with("newpath", it.newpath.clone())
                .with_object("owner", it.owner.as_ref(), owner)
                .with("timestamp", it.timestamp)
                .done()
        }),
    };
    json!({
        "input": it.input,
        "secondaryInput": it.secondary_input,
        "output": it.output,
        "Action": action.done(),
    })
}

fn copy(it: &pb::FileActionCopy) -> Value {
    Object::default()
        .with("src", it.src.clone())
        .with("dest", it.dest.clone())
        .with_object("owner", it.owner.as_ref(), owner)
        .with("mode", it.mode)
        .with("followSymlink", it.follow_symlink)
        .with("dirCopyContents", it.dir_copy_contents)
        .with("attemptUnpackDockerCompatibility", it.attempt_unpack_docker_compatibility)
        .with("createDestPath", it.create_dest_path)
        .with("allowWildcard", it.allow_wildcard)
        .with("allowEmptyWildcard", it.allow_empty_wildcard)
        .with("timestamp", it.timestamp)
        .with("include_patterns", it.include_patterns.clone())
        .with("exclude_patterns", it.exclude_patterns.clone())
        .with("alwaysReplaceExistingDestPaths", it.always_replace_existing_dest_paths)
        .with("modeStr", it.mode_str.clone())
        .with("required_paths", it.required_paths.clone())
        .done()
}

fn owner(it: &pb::ChownOpt) -> Value {
    Object::default()
        .with_object("user", it.user.as_ref(), user)
        .with_object("group", it.group.as_ref(), user)
        .done()
}

fn user(it: &pb::UserOpt) -> Value {
    let by = match &it.user {
        None => Object::default(),
        Some(User::ById(id)) => Object::default().with("byId", *id),
        Some(User::ByName(it)) => Object::default().with_object("byName", Some(it), |it| {
            Object::default().with("name", it.name.clone()).with("input", it.input).done()
        }),
    };
    json!({ "User": by.done() })
}

fn build(it: &pb::BuildOp) -> Value {
    let inputs: Map<String, Value> = it
        .inputs
        .iter()
        .map(|(name, it)| (name.clone(), Object::default().with("input", it.input).done()))
        .collect();
    let attrs: Map<String, Value> =
        it.attrs.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    let def = it.def.as_ref().map(|it| list(&it.def, |op| go_json::bytes(op).into()));
    Object::default()
        .with("builder", it.builder)
        .with("inputs", inputs)
        .with("def", def.map_or(Value::Null, |def| json!({ "def": def })))
        .with("attrs", attrs)
        .done()
}

fn merge(it: &pb::MergeOp) -> Value {
    let input = |it: &pb::MergeInput| Object::default().with("input", it.input).done();
    Object::default().with("inputs", list(&it.inputs, input)).done()
}

fn diff(it: &pb::DiffOp) -> Value {
    Object::default()
        .with_object("lower", it.lower.as_ref(), |it| {
            Object::default().with("input", it.input).done()
        })
        .with_object("upper", it.upper.as_ref(), |it| {
            Object::default().with("input", it.input).done()
        })
        .done()
}

fn passthrough(it: &pb::PassthroughOp) -> Value {
    Object::default().with("id", it.id.clone()).with("outputs", it.outputs.clone()).done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_left_out() {
        let exec = pb::ExecOp {
            meta: Some(pb::Meta { args: vec!["true".into()], ..pb::Meta::default() }),
            mounts: vec![
                pb::Mount { dest: "/".into(), ..pb::Mount::default() },
                pb::Mount {
                    input: -1,
                    output: -1,
                    mount_type: pb::MountType::Tmpfs.into(),
                    tmpfs_opt: Some(pb::TmpfsOpt::default()),
                    ..pb::Mount::default()
                },
            ],
            network: pb::NetMode::None.into(),
            ..pb::ExecOp::default()
        };
        let exec = pb::Op { op: Some(Op::Exec(exec)), ..pb::Op::default() };
        assert_eq!(
            op(&exec),
            json!({ "Op": { "exec": {
                "meta": { "args": ["true"] },
                "mounts": [
                    { "dest": "/" },
                    { "input": -1, "output": -1, "mountType": 4, "TmpfsOpt": {} },
                ],
                "network": 2,
            } } })
        );
    }

    #[test]
    fn actions_name_their_inputs_even_if_these_are_the_first() {
        let root = pb::UserOpt { user: Some(User::ById(0)) };
        let action = pb::FileAction {
            action: Some(Action::Mkdir(pb::FileActionMkDir {
                path: "/w".into(),
                owner: Some(pb::ChownOpt { user: Some(root), group: None }),
                ..pb::FileActionMkDir::default()
            })),
            ..pb::FileAction::default()
        };
        assert_eq!(
            file_action(&action),
            json!({
                "input": 0,
                "secondaryInput": 0,
                "output": 0,
                "Action": { "mkdir": { "path": "/w", "owner": { "user": { "User": {} } } } },
            })
        );
    }
}
