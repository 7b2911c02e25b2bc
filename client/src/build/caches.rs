//! External caches: what the daemon is told, and what the session serves of them.

use super::cache_credentials;
use crate::args::boolean;
use crate::args::cache::Cache;
use crate::args::invalid::Invalid;
use crate::session::{Layout, LayoutError, Name, Stores};
use anyhow::{Context, Result};
use kiln_proto::control::{CacheOptions, CacheOptionsEntry};
use serde_json::{Value, json};

/// Looks up a variable of the environment.
pub(super) type Env = fn(&str) -> Option<String>;

const DEFAULT_TAG: &str = "latest";

/// The external caches of a build.
#[derive(Debug, Default)]
pub(super) struct Caches {
    /// What the daemon is told.
    pub(super) options: CacheOptions,
    /// Layouts to serve.
    pub(super) stores: Stores,
    exported: Vec<Exported>,
    /// What the user should know: a cache that is not there is no error.
    pub(super) notes: Vec<String>,
}

/// A layout that gets a new cache.
#[derive(Debug)]
struct Exported {
    layout: Layout,
    name: Name,
    /// Whether what no name leads to is to be removed.
    resets: bool,
}

impl Caches {
    /// Finds out what a command line's caches are.
    pub(super) async fn load(from: &[Cache], to: &[Cache], env: Env) -> Result<Self> {
        let mut caches = Self::default();
        for cache in to {
            let Some(cache) = caches.complete(cache, env).await else { continue };
            let kind = format!("--cache-to type={}", cache.kind);
            caches.add_export(cache).context(kind)?;
        }
        for cache in from {
            let Some(cache) = caches.complete(cache, env).await else { continue };
            caches
                .add_import(&cache)
                .with_context(|| format!("--cache-from type={}", cache.kind))?;
        }
        Ok(caches)
    }

    /// The same cache with the credentials that the user's environment has for it; none if it can be
    /// used in that environment only, and this is another.
    async fn complete(&mut self, cache: &Cache, env: Env) -> Option<Cache> {
        let mut cache = cache.clone();
        match cache.kind.as_str() {
            "s3" => cache_credentials::add_aws(&mut cache.attributes).await,
            "gha" => {
                cache_credentials::add_github(&mut cache.attributes, env);
                if !cache_credentials::is_in_job(&cache) {
                    let note = "a cache of type gha is not used: this is not a job of GitHub Actions \
                                with ACTIONS_RUNTIME_TOKEN in its steps' environment";
                    if !self.notes.iter().any(|known| known == note) {
                        self.notes.push(note.to_owned());
                    }
                    return None;
                }
            }
            _ => {}
        }
        Some(cache)
    }

    fn add_export(&mut self, mut cache: Cache) -> Result<()> {
        if cache.kind == "local" {
            let resets = cache.attributes.remove("reset");
            let resets = resets.map(|value| boolean::parse(&value)).transpose().context("reset")?;
            let dest = required(&cache, "dest")?;
            let layout = Layout::new(dest);
            layout.create()?;
            self.stores.insert(store_name(dest), layout.clone());
            let name = Name::Tag(cache.get("tag").unwrap_or(DEFAULT_TAG).to_owned());
            self.exported.push(Exported { layout, name, resets: resets.unwrap_or(false) });
        }
        self.options.exports.push(entry(&cache));
        Ok(())
    }

    fn add_import(&mut self, cache: &Cache) -> Result<()> {
        let mut entry = entry(cache);
        if cache.kind == "local" {
            let src = required(cache, "src")?;
            let layout = Layout::new(src);
            match digest(cache, &layout) {
                Ok(digest) => {
                    entry.attrs.insert("digest".to_owned(), digest);
                    self.stores.insert(store_name(src), layout);
                }
                Err(error) => {
                    self.notes.push(format!("the cache in {src} is not used: {error}"));
                    return Ok(());
                }
            }
        }
        self.options.imports.push(entry);
        Ok(())
    }

    /// The imports as the frontend is told of them.
    pub(super) fn frontend_attribute(&self) -> Option<String> {
        let imports: Vec<Value> = self
            .options
            .imports
            .iter()
            .map(|import| json!({ "Type": import.r#type, "Attrs": import.attrs }))
            .collect();
        (!imports.is_empty()).then(|| Value::Array(imports).to_string())
    }

    /// Enters the cache that was exported into the layouts that hold it now.
    pub(super) fn finish(&self, manifest: &Value) -> Result<(), LayoutError> {
        for Exported { layout, name, resets } in &self.exported {
            layout.enter(manifest, std::slice::from_ref(name))?;
            if *resets {
                layout.remove_unnamed()?;
            }
        }
        Ok(())
    }
}

/// The digest of a local cache's manifest.
fn digest(cache: &Cache, layout: &Layout) -> Result<String, LayoutError> {
    match cache.get("digest") {
        Some(digest) => Ok(digest.to_owned()),
        None => layout.resolve(cache.get("tag").unwrap_or(DEFAULT_TAG), false),
    }
}

fn required<'a>(cache: &'a Cache, key: &'static str) -> Result<&'a str, Invalid> {
    cache.get(key).ok_or_else(|| Invalid::Missing { key, of: "type=local".to_owned() })
}

fn store_name(path: &str) -> String {
    format!("local:{path}")
}

fn entry(cache: &Cache) -> CacheOptionsEntry {
    CacheOptionsEntry { r#type: cache.kind.clone(), attrs: cache.attributes.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::cache::parse;

    fn no_env(_: &str) -> Option<String> {
        None
    }

    #[tokio::test]
    async fn a_local_cache_is_found_by_its_name_and_entered_under_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let to = parse(&format!("type=local,dest={path},mode=max")).unwrap();
        let from = parse(&format!("type=local,src={path}")).unwrap();

        let first = Caches::load(&from, &to, no_env).await.unwrap();
        assert_eq!(first.options.imports, []);
        assert_eq!(first.notes.len(), 1);
        assert_eq!(first.frontend_attribute(), None);
        let digest = format!("sha256:{}", "a".repeat(64));
        first.finish(&json!({ "digest": digest, "mediaType": "m", "size": 1 })).unwrap();

        let second = Caches::load(&from, &to, no_env).await.unwrap();
        assert_eq!(second.options.imports[0].attrs["digest"], digest);
        assert_eq!(second.notes, [""; 0]);
        assert!(second.frontend_attribute().unwrap().contains(&digest));
    }

    #[tokio::test]
    async fn a_local_cache_needs_a_directory() {
        let caches = parse("type=local,mode=max").unwrap();
        let error = Caches::load(&[], &caches, no_env).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "--cache-to type=local: dest is missing (type=local)");
    }

    #[tokio::test]
    async fn a_cache_of_github_is_for_its_jobs_only() {
        let gha = parse("type=gha,scope=s").unwrap();
        let outside = Caches::load(&gha, &gha, no_env).await.unwrap();
        assert_eq!((outside.options, outside.notes.len()), (CacheOptions::default(), 1));

        let job = |name: &str| match name {
            "ACTIONS_RUNTIME_TOKEN" => Some("t".to_owned()),
            "ACTIONS_RESULTS_URL" => Some("https://host/".to_owned()),
            _ => None,
        };
        let inside = Caches::load(&gha, &gha, job).await.unwrap();
        assert_eq!(inside.notes, [""; 0]);
        for entry in [&inside.options.imports[0], &inside.options.exports[0]] {
            assert_eq!(entry.attrs["token"], "t");
            assert_eq!(entry.attrs["url"], "https://host/");
            assert_eq!(entry.attrs["scope"], "s");
        }
    }
}
