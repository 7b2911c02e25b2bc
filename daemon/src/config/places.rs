//! Where things are if nobody says otherwise: root's daemon has the host's places, an ordinary user's
//! has that user's (XDG Base Directory Specification).

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;

/// Whose places are used.
#[derive(Debug, Clone)]
pub(super) enum Places {
    /// The host's.
    Host,
    /// A user's.
    User {
        /// Of the configuration.
        config: PathBuf,
        /// Of the state.
        data: PathBuf,
        /// Of the socket.
        runtime: PathBuf,
    },
}

impl Places {
    /// Those of who runs this process; or, with `rootless`, those of the user whose user namespace
    /// it was started in.
    pub(super) fn of_this_process(rootless: bool) -> anyhow::Result<Self> {
        let uid = rustix::process::geteuid();
        if uid.is_root() && !rootless {
            return Ok(Self::Host);
        }
        if uid.is_root() && !kiln_executor::in_user_namespace() {
            bail!("--rootless: kilnd was started by root: start it as the user that is to own it");
        }
        Ok(Self::of_user(|name| std::env::var_os(name), uid.as_raw()))
    }

    fn of_user(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        let given =
            |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = given("HOME").unwrap_or_else(|| "/".into());
        let or_home = |name: &str, folder: &str| given(name).unwrap_or_else(|| home.join(folder));
        // As in the client, which looks for the socket.
        let login = PathBuf::from(format!("/run/user/{uid}"));
        let runtime = given("XDG_RUNTIME_DIR").or_else(|| login.is_dir().then_some(login));
        Self::User {
            config: or_home("XDG_CONFIG_HOME", ".config"),
            data: or_home("XDG_DATA_HOME", ".local/share"),
            runtime: runtime.unwrap_or_else(|| home.join(".cache")),
        }
    }

    pub(super) fn is_host(&self) -> bool {
        matches!(self, Self::Host)
    }

    /// The folder of what is configured.
    pub(super) fn settings(&self) -> PathBuf {
        match self {
            Self::Host => "/etc/kiln".into(),
            Self::User { config, .. } => config.join("kiln"),
        }
    }

    /// The configuration.
    pub(super) fn file(&self) -> PathBuf {
        self.settings().join("kilnd.toml")
    }

    /// What provenance says besides.
    pub(super) fn provenance(&self) -> PathBuf {
        self.settings().join("provenance.d")
    }

    /// The state directory.
    pub(super) fn root(&self) -> PathBuf {
        match self {
            Self::Host => "/var/lib/kiln".into(),
            Self::User { data, .. } => data.join("kiln"),
        }
    }

    /// The address that is listened on.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Host => "unix:///run/kiln/kilnd.sock".into(),
            Self::User { runtime, .. } => {
                format!("unix://{}", runtime.join("kiln/kilnd.sock").display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_places_are_those_of_the_environment_or_below_the_home() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(name, value)| (name.to_string(), value)).collect();
            let variable = |name: &str| {
                set.iter().find(|(other, _)| other == name).map(|(_, value)| OsString::from(value))
            };
            // An id that nobody logs in with.
            let places = Places::of_user(variable, u32::MAX - 1);
            [places.file(), places.root(), places.address().into()]
        };
        let home = ("HOME", "/home/alice");
        let expected = [
            "/home/alice/.config/kiln/kilnd.toml",
            "/home/alice/.local/share/kiln",
            "unix:///home/alice/.cache/kiln/kilnd.sock",
        ];
        assert_eq!(of(&[home]), expected.map(PathBuf::from));
        let set = [
            home,
            ("XDG_CONFIG_HOME", "/c"),
            ("XDG_DATA_HOME", "/d"),
            ("XDG_RUNTIME_DIR", "/run/user/1000"),
        ];
        let expected = ["/c/kiln/kilnd.toml", "/d/kiln", "unix:///run/user/1000/kiln/kilnd.sock"];
        assert_eq!(of(&set), expected.map(PathBuf::from));
        assert_eq!(
            of(&[home, ("XDG_DATA_HOME", "")])[1],
            PathBuf::from("/home/alice/.local/share/kiln")
        );
    }

    #[test]
    fn root_has_the_hosts() {
        assert_eq!(Places::Host.file(), PathBuf::from("/etc/kiln/kilnd.toml"));
        assert_eq!(Places::Host.root(), PathBuf::from("/var/lib/kiln"));
        assert_eq!(Places::Host.address(), "unix:///run/kiln/kilnd.sock");
    }
}
