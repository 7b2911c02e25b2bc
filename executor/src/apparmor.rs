//! AppArmor: whether this host has it, and a profile in it.

use std::fs;
use std::io;

/// Says `Y` where the kernel confines by AppArmor.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";

/// The profiles that are loaded, each in a line with its mode.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Why steps cannot be confined by a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppArmorError {
    /// The kernel was built or started without it.
    #[error("this host does not have AppArmor")]
    NotEnabled,
    /// There is no such profile.
    #[error("it is not loaded")]
    NotLoaded,
}

/// Fails unless steps can be confined by `profile`. Where the list of profiles cannot be read, the
/// first step will tell.
pub(crate) fn check(profile: &str) -> Result<(), AppArmorError> {
    find(profile, fs::read_to_string(ENABLED), fs::read_to_string(PROFILES))
}

fn find(
    profile: &str,
    enabled: io::Result<String>,
    profiles: io::Result<String>,
) -> Result<(), AppArmorError> {
    if !enabled.is_ok_and(|enabled| enabled.trim() == "Y") {
        return Err(AppArmorError::NotEnabled);
    }
    let Ok(profiles) = profiles else { return Ok(()) };
    let mut names = profiles.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0));
    names.any(|name| name == profile).then_some(()).ok_or(AppArmorError::NotLoaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_has_to_be_loaded_on_a_host_that_has_them() {
        let yes = || Ok("Y\n".to_owned());
        let missing = || Err(io::ErrorKind::NotFound.into());
        let list = || Ok("docker-default (enforce)\n/usr/bin/man (x) (complain)\n".to_owned());
        for (profile, enabled, profiles, expected) in [
            ("docker-default", yes(), list(), Ok(())),
            ("/usr/bin/man (x)", yes(), list(), Ok(())),
            ("docker", yes(), list(), Err(AppArmorError::NotLoaded)),
            ("docker", yes(), missing(), Ok(())),
            ("docker-default", Ok("N\n".to_owned()), list(), Err(AppArmorError::NotEnabled)),
            ("docker-default", missing(), list(), Err(AppArmorError::NotEnabled)),
        ] {
            assert_eq!(find(profile, enabled, profiles), expected, "{profile}");
        }
    }
}
