//! What a user's environment has for caches on other machines: the daemon runs somewhere else, and
//! as somebody else. buildx looks at the same places.

use crate::args::boolean;
use crate::args::cache::Cache;
use reqsign_aws_v4::DefaultCredentialProvider;
use reqsign_command_execute_tokio::TokioCommandExecute;
use reqsign_core::{Context, OsEnv, ProvideCredential as _};
use reqsign_file_read_tokio::TokioFileRead;
use std::collections::BTreeMap;

use super::caches::Env;

type Attributes = BTreeMap<String, String>;

/// Adds keys for AWS from the environment, or from the files and programs of a profile. Services that
/// hand out keys to machines are not asked: the daemon does that, if the client has none.
pub(super) async fn add_aws(attributes: &mut Attributes) {
    let has = |name: &str| attributes.get(name).is_some_and(|value| !value.is_empty());
    // Keys that were given have their own token, or none.
    if has("access_key_id") && has("secret_access_key") {
        return;
    }
    let context = Context::new()
        .with_env(OsEnv)
        .with_file_read(TokioFileRead)
        .with_command_execute(TokioCommandExecute);
    let provider =
        DefaultCredentialProvider::builder().no_sso().no_web_identity().no_ecs().no_imds().build();
    // Without them the daemon says what is missing.
    let Ok(Some(found)) = provider.provide_credential(&context).await else { return };
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            attributes.entry(name.to_owned()).or_insert(value);
        }
    };
    add("access_key_id", found.access_key_id);
    add("secret_access_key", found.secret_access_key);
    add("session_token", found.session_token.unwrap_or_default());
}

/// Adds the address and the token of a running job of GitHub Actions.
pub(super) fn add_github(attributes: &mut Attributes, env: Env) {
    let is_v2 = match attributes.get("version") {
        Some(version) => version == "2",
        None => env("ACTIONS_CACHE_SERVICE_V2").is_some_and(|value| boolean::holds(&value)),
    };
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            attributes.entry(name.to_owned()).or_insert(value);
        }
    };
    add("token", env("ACTIONS_RUNTIME_TOKEN"));
    if is_v2 {
        add("url_v2", env("ACTIONS_RESULTS_URL"));
    }
    add("url", env("ACTIONS_CACHE_URL").or_else(|| env("ACTIONS_RESULTS_URL")));
}

/// Whether a cache of GitHub Actions has what it takes to be used.
pub(super) fn is_in_job(cache: &Cache) -> bool {
    cache.get("token").is_some() && (cache.get("url").is_some() || cache.get("url_v2").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Option<String> {
        let value = match name {
            "ACTIONS_RUNTIME_TOKEN" => "token",
            "ACTIONS_CACHE_URL" => "https://one/",
            "ACTIONS_RESULTS_URL" => "https://two/",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn job_v2(name: &str) -> Option<String> {
        if name == "ACTIONS_CACHE_SERVICE_V2" { Some("true".to_owned()) } else { job(name) }
    }

    #[test]
    fn a_job_tells_its_token_and_the_address_of_either_protocol() {
        let shown = |given: &[(&str, &str)], env: Env| {
            let mut attributes: Attributes =
                given.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
            add_github(&mut attributes, env);
            let pairs = attributes.iter().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join(" ")
        };
        let v2 = "token=token url=https://one/ url_v2=https://two/";
        assert_eq!(shown(&[], job), "token=token url=https://one/");
        assert_eq!(shown(&[], job_v2), v2);
        assert_eq!(shown(&[("version", "2")], job), format!("{v2} version=2"));
        assert_eq!(shown(&[("version", "1")], job_v2), "token=token url=https://one/ version=1");
        assert_eq!(shown(&[("token", "mine"), ("url", "u")], job), "token=mine url=u");
    }
}
