//! Credentials of caches, which are among the options that a frontend is told.

use std::collections::BTreeMap;

use serde_json::Value;

/// The option that names imported caches.
const CACHE_IMPORTS: &str = "cache-imports";
/// Attributes that are nobody's business.
const SECRET: [&str; 5] =
    ["access_key_id", "secret_access_key", "session_token", "token", "ghtoken"];

/// Takes the credentials of caches out of options that are to be kept.
pub(crate) fn hide_secrets(options: &mut BTreeMap<String, String>) {
    let Some(json) = options.get_mut(CACHE_IMPORTS).filter(|json| !json.is_empty()) else { return };
    let hide = |cache: &mut Value| {
        let attributes = cache.get_mut("Attrs")?.as_object_mut()?;
        attributes.retain(|name, _| !SECRET.contains(&name.to_ascii_lowercase().as_str()));
        Some(())
    };
    match serde_json::from_str::<Value>(json) {
        Ok(Value::Array(mut caches)) => {
            caches.iter_mut().for_each(|cache| _ = hide(cache));
            *json = Value::Array(caches).to_string();
        }
        // Nobody can tell what is in it.
        _ => json.clear(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_caches_says_where_they_are_and_not_how_to_get_in() {
        let kept = |json: &str| {
            let mut options = BTreeMap::from([(CACHE_IMPORTS.to_owned(), json.to_owned())]);
            hide_secrets(&mut options);
            options.remove(CACHE_IMPORTS).unwrap()
        };
        let s3 =
            r#"[{"Attrs":{"bucket":"b","secret_access_key":"S","session_token":"S"},"Type":"s3"}]"#;
        assert_eq!(kept(s3), r#"[{"Attrs":{"bucket":"b"},"Type":"s3"}]"#);
        assert_eq!(kept(r#"[{"Type":"s3"},1]"#), r#"[{"Type":"s3"},1]"#);
        assert_eq!(kept("{secret"), "");
    }
}
