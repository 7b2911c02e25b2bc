//! The user namespace of steps: `userNamespaces` of `[worker.oci]`, and whose ids are in it.

use anyhow::{Context as _, bail};
use kiln_executor::SubordinateIds;

use super::file::Worker;
use super::places::Places;

/// Whose ids they are if nobody says so.
const OWNER: &str = "kiln";

/// The host's ids for those of steps, if these are to have a user namespace.
pub(super) fn of_steps(worker: &Worker, places: &Places) -> anyhow::Result<Option<SubordinateIds>> {
    if worker.user_namespaces != Some(true) {
        if worker.user_namespace_ids.is_some() {
            bail!("worker.oci.userNamespaceIds is for userNamespaces, which is not on");
        }
        return Ok(None);
    }
    if !places.is_host() {
        bail!("worker.oci.userNamespaces: an ordinary user's daemon is in one, with all its steps");
    }
    let ids = worker.user_namespace_ids.as_deref().unwrap_or(OWNER);
    let found = if ids.contains(':') { ids.parse() } else { SubordinateIds::of_user(ids) };
    found.map(Some).context("worker.oci.userNamespaceIds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(on: Option<bool>, ids: Option<&str>, places: &Places) -> Result<bool, String> {
        let ids = ids.map(str::to_owned);
        let worker = Worker { user_namespaces: on, user_namespace_ids: ids, ..Worker::default() };
        let found = of_steps(&worker, places);
        found.map(|ids| ids.is_some()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn steps_have_a_user_namespace_only_where_that_is_configured() {
        let host = Places::Host;
        assert_eq!(configured(None, None, &host), Ok(false));
        assert_eq!(configured(Some(false), None, &host), Ok(false));
        assert_eq!(configured(Some(true), Some("200000:65536"), &host), Ok(true));
        let error = configured(Some(true), Some("nobody-has-this-name"), &host).unwrap_err();
        assert!(
            error.starts_with("worker.oci.userNamespaceIds: /etc/subuid has no line for"),
            "{error}"
        );
        let error = configured(Some(true), Some("0:65536"), &host).unwrap_err();
        assert!(error.contains("\"0:65536\" is no range"), "{error}");
        let error = configured(None, Some("kiln"), &host).unwrap_err();
        assert!(error.contains("not on"), "{error}");
    }

    #[test]
    fn an_ordinary_users_daemon_has_one_already() {
        let [config, data, runtime] = ["/c", "/d", "/r"].map(Into::into);
        let places = Places::User { config, data, runtime };
        let error = configured(Some(true), Some("200000:65536"), &places).unwrap_err();
        assert!(error.contains("ordinary user"), "{error}");
    }
}
