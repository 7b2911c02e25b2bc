//! The options of a mount, from words to a [`Mount`].

use super::mount::{
    CacheOwner, FileOwner, Mount, MountError, MountKind, SecretMount, Sharing, SshMount, boolean,
};
use crate::expand::ExpandError;
use crate::path;
use crate::size;
use crate::suggest;

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn parse(text: &str) -> Result<Self, MountError> {
        let found = Self::ALL.into_iter().find(|kind| text.eq_ignore_ascii_case(kind.name()));
        found.ok_or_else(|| MountError::UnknownType {
            given: text.to_owned(),
            suggestion: suggest::closest(text, Self::ALL.map(Self::name)).map(str::to_owned),
        })
    }
}

/// Every option that was given, before the type says which of them may be.
#[derive(Default)]
pub(super) struct Fields {
    kind: Kind,
    from: Option<String>,
    source: String,
    target: String,
    read_only: Option<bool>,
    required: Option<bool>,
    size: Option<u64>,
    id: Option<String>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    env: Option<String>,
}

impl Fields {
    pub(super) fn read(
        fields: &[String],
        mut expand: impl FnMut(&str) -> Result<String, ExpandError>,
    ) -> Result<Self, MountError> {
        let mut read = Self::default();
        for field in fields {
            match field.split_once('=') {
                Some((key, value)) => read.set(&key.to_lowercase(), expand(value)?, field)?,
                None => read.set_bare(field)?,
            }
        }
        Ok(read)
    }

    /// An option without a value.
    fn set_bare(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => self.required = Some(true),
            _ => return Err(MountError::NotAPair { field: field.to_owned() }),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), MountError> {
        let invalid = || MountError::InvalidValue { key: key.to_owned(), value: value.clone() };
        match key {
            "type" => self.kind = Kind::parse(&value)?,
            "from" => self.from = Some(value).filter(|from| !from.is_empty()),
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => self.read_only = Some(boolean(&value).ok_or_else(invalid)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean(&value).ok_or_else(invalid)?),
            "required" => self.required = Some(boolean(&value).ok_or_else(invalid)?),
            "size" => self.size = Some(size::parse(&value).ok_or_else(invalid)?),
            "id" => self.id = Some(value).filter(|id| !id.is_empty()),
            "sharing" => self.sharing = Some(Sharing::parse(&value)?),
            "mode" => {
                self.mode = Some(u32::from_str_radix(&value, 8).map_err(|_| invalid())?);
            }
            "uid" => self.uid = Some(value.parse().map_err(|_| invalid())?),
            "gid" => self.gid = Some(value.parse().map_err(|_| invalid())?),
            "env" => self.env = Some(value),
            _ => {
                let suggestion = suggest::closest(key, KEYS).map(str::to_owned);
                let (key, field) = (key.to_owned(), field.to_owned());
                return Err(MountError::UnknownKey { key, field, suggestion });
            }
        }
        Ok(())
    }

    pub(super) fn into_mount(self) -> Result<Mount, MountError> {
        self.check_applicable()?;
        let target = self.target.clone();
        let kind = match self.kind {
            Kind::Bind => MountKind::Bind {
                read_only: self.read_only.unwrap_or(true),
                from: self.from,
                source: self.source,
            },
            Kind::Cache => MountKind::Cache {
                owner: self.cache_owner(),
                id: self.id.unwrap_or_else(|| path::clean(&self.target)),
                sharing: self.sharing.unwrap_or_default(),
                read_only: self.read_only.unwrap_or(false),
                from: self.from,
                source: self.source,
            },
            Kind::Tmpfs => MountKind::Tmpfs { size: self.size.filter(|size| *size > 0) },
            Kind::Secret => MountKind::Secret(self.into_secret()?),
            Kind::Ssh => MountKind::Ssh(SshMount {
                owner: self.file_owner(0o600),
                id: self.id.unwrap_or_else(|| "default".to_owned()),
                target: Some(self.target).filter(|target| !target.is_empty()),
                required: self.required.unwrap_or(false),
            }),
        };
        Ok(Mount { target, kind })
    }

    /// Refuses options that the type does not have.
    fn check_applicable(&self) -> Result<(), MountError> {
        let credential = matches!(self.kind, Kind::Secret | Kind::Ssh);
        let owned = credential || self.kind == Kind::Cache;
        let checks = [
            ("required", self.required.is_some(), credential),
            ("size", self.size.is_some(), self.kind == Kind::Tmpfs),
            ("mode", self.mode.is_some(), owned),
            ("uid", self.uid.is_some(), owned),
            ("gid", self.gid.is_some(), owned),
            ("sharing", self.sharing.is_some(), self.kind == Kind::Cache),
            ("from", self.from.is_some(), self.kind != Kind::Secret),
        ];
        match checks.into_iter().find(|(_, given, allowed)| *given && !allowed) {
            Some((key, ..)) => Err(MountError::NotForType { key, kind: self.kind.name() }),
            None => Ok(()),
        }
    }

    fn cache_owner(&self) -> Option<CacheOwner> {
        if self.uid.is_none() && self.gid.is_none() && self.mode.is_none() {
            return None;
        }
        let (uid, gid) = (self.uid.unwrap_or(0), self.gid.unwrap_or(0));
        Some(CacheOwner { uid, gid, mode: self.mode.unwrap_or(0o755) })
    }

    fn file_owner(&self, mode: u32) -> FileOwner {
        let (uid, gid) = (self.uid.unwrap_or(0), self.gid.unwrap_or(0));
        FileOwner { uid, gid, mode: self.mode.unwrap_or(mode) }
    }

    fn into_secret(self) -> Result<SecretMount, MountError> {
        let owner = self.file_owner(0o400);
        let source = Some(self.source).filter(|source| !source.is_empty());
        let target = Some(self.target).filter(|target| !target.is_empty());
        let id = match (source, self.id) {
            (Some(_), Some(_)) => return Err(MountError::TwiceNamedSecret),
            (Some(name), None) | (None, Some(name)) => name,
            (None, None) => {
                let target = target.as_deref().ok_or(MountError::NamelessSecret)?;
                path::base(target).to_owned()
            }
        };
        let target = match (target, &self.env) {
            (None, None) => Some(format!("/run/secrets/{}", path::base(&id))),
            (target, _) => target,
        };
        Ok(SecretMount {
            env: self.env.map(|env| if env.is_empty() { id.clone() } else { env }),
            id,
            target,
            required: self.required.unwrap_or(false),
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_mount;
    use super::*;

    fn kind(text: &str) -> MountKind {
        parse_mount(text).unwrap_or_else(|error| panic!("{text}: {error}")).kind
    }

    #[test]
    fn a_bind_mount_is_the_default_and_read_only() {
        let mount = parse_mount("target=/src").unwrap();
        assert_eq!(mount.target, "/src");
        let bind = |from: Option<&str>, source: &str, read_only| MountKind::Bind {
            from: from.map(str::to_owned),
            source: source.to_owned(),
            read_only,
        };
        assert_eq!(mount.kind, bind(None, "", true));
        assert_eq!(kind("TYPE=Bind,src=a,dst=/b,from=c,rw"), bind(Some("c"), "a", false));
        assert_eq!(kind("destination=/b,source=a,readonly=false"), bind(None, "a", false));
        assert_eq!(kind("dst=/b,rw=0"), bind(None, "", true));
    }

    #[test]
    fn a_cache_mount_is_named_by_its_target_and_writable() {
        let MountKind::Cache { id, sharing, read_only, owner, .. } =
            kind("type=cache,target=/a//b/")
        else {
            panic!("not a cache")
        };
        assert_eq!((id.as_str(), sharing, read_only), ("/a/b", Sharing::Shared, false));
        assert_eq!(owner, None);
        let MountKind::Cache { id, sharing, owner, .. } =
            kind("type=cache,target=/a,id=x,sharing=LOCKED,uid=7,mode=0700")
        else {
            panic!("not a cache")
        };
        assert_eq!((id.as_str(), sharing), ("x", Sharing::Locked));
        assert_eq!(owner, Some(CacheOwner { uid: 7, gid: 0, mode: 0o700 }));
    }

    #[test]
    fn a_tmpfs_may_have_a_size() {
        assert_eq!(kind("type=tmpfs,target=/a"), MountKind::Tmpfs { size: None });
        assert_eq!(kind("size=1m,type=tmpfs,target=/a"), MountKind::Tmpfs { size: Some(1 << 20) });
    }

    #[test]
    fn a_secret_is_a_file_or_a_variable() {
        let secret = |text: &str| match kind(text) {
            MountKind::Secret(secret) => (secret.id, secret.target, secret.env, secret.required),
            other => panic!("{other:?}"),
        };
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            ("id=a", "a", some("/run/secrets/a"), None, false),
            ("id=a/b", "a/b", some("/run/secrets/b"), None, false),
            ("src=a,required", "a", some("/run/secrets/a"), None, true),
            ("target=/x/token", "token", some("/x/token"), None, false),
            ("id=a,env=TOKEN", "a", None, some("TOKEN"), false),
            ("id=a,env=TOKEN,dst=/x,required=true", "a", some("/x"), some("TOKEN"), true),
        ];
        for (text, id, target, env, required) in cases {
            let expected = (id.to_owned(), target, env, required);
            assert_eq!(secret(&format!("type=secret,{text}")), expected, "{text}");
        }
    }

    #[test]
    fn an_ssh_mount_has_a_default_agent() {
        let owner = FileOwner { uid: 0, gid: 0, mode: 0o600 };
        let id = "default".to_owned();
        let expected = SshMount { id, target: None, required: false, owner };
        assert_eq!(kind("type=ssh"), MountKind::Ssh(expected));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("", "invalid --mount: the value is empty"),
            ("type=bond", "unsupported mount type \"bond\""),
            ("target", "invalid field 'target' must be a key=value pair"),
            ("tagret=/a", "unexpected key 'tagret' in 'tagret=/a'"),
            (
                "from=$X,target=/a",
                "'from' doesn't support variable expansion, define alias stage instead",
            ),
            ("ro=maybe", "invalid value for ro: maybe"),
            ("target=/a,required", "unexpected key 'required' for mount type 'bind'"),
            ("target=/a,size=1", "unexpected key 'size' for mount type 'bind'"),
            ("target=/a,mode=0600", "unexpected key 'mode' for mount type 'bind'"),
            ("type=tmpfs,uid=1", "unexpected key 'uid' for mount type 'tmpfs'"),
            ("type=ssh,sharing=locked", "unexpected key 'sharing' for mount type 'ssh'"),
            ("type=cache,sharing=looked", "unsupported sharing value \"looked\""),
            ("type=cache,mode=9", "invalid value for mode: 9"),
            ("type=cache,uid=-1", "invalid value for uid: -1"),
            ("type=tmpfs,size=big", "invalid value for size: big"),
            ("type=secret", "invalid secret mount: one of id, source, target is required"),
            ("type=secret,id=a,src=b", "invalid secret mount: both source and id can't be set"),
            ("type=secret,id=a,from=b", "unexpected key 'from' for mount type 'secret'"),
        ];
        for (text, message) in cases {
            assert_eq!(parse_mount(text).unwrap_err().to_string(), message, "{text}");
        }
    }
}
