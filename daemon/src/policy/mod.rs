//! Source policies: which sources a build may use, and what takes the place of others.
//!
//! A policy is a list of [`rules`] that the client sends, or the client itself, which is
//! [asked](verifier) over its session, or both. Every graph is [admitted](admit) before anything of
//! it is made: its sources are looked at, and where one is converted, the steps that need it are
//! made anew. Metadata of sources is looked up for what the policy makes of them, too.

mod admit;
mod rules;
mod verifier;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_proto::pb;
use kiln_proto::policysession::DenyMessage;
use kiln_proto::sourcepolicy::Policy;
use kiln_registry::ImageRef;

use crate::session::Session;
use crate::solver::Build;
use rules::{InvalidPolicy, Rules};

/// The policy of one build. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct SourcePolicy {
    /// Asked in order.
    rules: Arc<[Rules]>,
    /// The client that decides about sources itself.
    verifier: Option<Arc<Session>>,
}

/// A source that a build wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) source: pb::SourceOp,
    pub(crate) platform: Option<pb::Platform>,
}

/// A source may not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("source {0:?}: source denied by policy")]
    ByRule(String),
    #[error("source {identifier:?} not allowed by policy: action {action}{}", because(messages))]
    ByClient { identifier: String, action: &'static str, messages: Vec<DenyMessage> },
}

impl Denied {
    /// What the client says about it, if it has decided and says anything.
    pub(crate) fn messages(&self) -> Option<&[DenyMessage]> {
        match self {
            Self::ByClient { messages, .. } if !messages.is_empty() => Some(messages),
            Self::ByRule(_) | Self::ByClient { .. } => None,
        }
    }
}

fn because(messages: &[DenyMessage]) -> String {
    let said: Vec<&str> = messages.iter().map(|said| said.message.as_str()).collect();
    if said.is_empty() { String::new() } else { format!(": {}", said.join(", ")) }
}

/// More conversions of one source than make sense: they lead back to where they began.
#[derive(Debug, thiserror::Error)]
#[error("source {0:?}: the policy converts it over and over")]
struct Endless(String);

impl SourcePolicy {
    /// Reads what clients send.
    pub(crate) fn new(
        policies: &[Policy],
        verifier: Option<Arc<Session>>,
    ) -> Result<Self, InvalidPolicy> {
        let rules = policies.iter().filter(|policy| !policy.rules.is_empty());
        let rules = rules.map(Rules::parse).collect::<Result<_, _>>()?;
        Ok(Self { rules, verifier })
    }

    /// This policy with more rules, asked after its own.
    pub(crate) fn with(&self, policies: &[Policy]) -> Result<Self, InvalidPolicy> {
        let more = Self::new(policies, None)?;
        let rules = self.rules.iter().chain(more.rules.iter()).cloned().collect();
        Ok(Self { rules, verifier: self.verifier.clone() })
    }

    /// Whether every source may be used as it is.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.verifier.is_none()
    }

    /// Decides about a source: an error is that it may not be used. What is returned is to be used in
    /// its place, and may be the same.
    pub(crate) async fn decide(
        &self,
        build: &Arc<Build>,
        mut wanted: Wanted,
    ) -> anyhow::Result<Wanted> {
        if self.is_empty() {
            return Ok(wanted);
        }
        wanted.source.identifier = normal(&wanted.source.identifier);
        self.convert(&mut wanted.source)?;
        match &self.verifier {
            Some(session) => verifier::ask(self, build, session, wanted).await,
            None => Ok(wanted),
        }
    }

    /// Applies the rules to a source.
    fn convert(&self, source: &mut pb::SourceOp) -> anyhow::Result<()> {
        const MOST: usize = 20;
        for _ in 0..=MOST {
            let mut is_converted = false;
            for rules in &*self.rules {
                is_converted = rules.apply(source)?;
                if is_converted {
                    break;
                }
            }
            if !is_converted {
                return Ok(());
            }
            source.identifier = normal(&source.identifier);
        }
        Err(Endless(source.identifier.clone()).into())
    }
}

/// An identifier as rules are written for it: images by their full names.
fn normal(identifier: &str) -> String {
    let image = identifier.strip_prefix("docker-image://");
    match image.and_then(|name| name.parse::<ImageRef>().ok()) {
        Some(image) => format!("docker-image://{image}"),
        None => identifier.to_owned(),
    }
}

impl Wanted {
    /// An image of a registry.
    pub(crate) fn image(image: &ImageRef, platform: Option<pb::Platform>) -> Self {
        let identifier = format!("docker-image://{image}");
        Self { source: pb::SourceOp { identifier, attrs: BTreeMap::new() }, platform }
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::sourcepolicy::{PolicyAction, Rule, Selector, Update};

    use super::*;

    fn rule(action: PolicyAction, identifier: &str, updated: Option<&str>) -> Rule {
        Rule {
            action: action.into(),
            selector: Some(Selector { identifier: identifier.to_owned(), ..Selector::default() }),
            updates: updated.map(|to| Update { identifier: to.to_owned(), ..Update::default() }),
        }
    }

    fn converted(policies: &[Vec<Rule>], identifier: &str) -> anyhow::Result<String> {
        let policies: Vec<Policy> =
            policies.iter().map(|rules| Policy { version: 1, rules: rules.clone() }).collect();
        let mut source = pb::SourceOp { identifier: normal(identifier), ..Default::default() };
        SourcePolicy::new(&policies, None)?.convert(&mut source)?;
        Ok(source.identifier)
    }

    #[test]
    fn policies_are_asked_in_order_and_anew_after_a_conversion() {
        use PolicyAction::{Allow, Convert, Deny};
        let alpine = "docker-image://docker.io/library/alpine:latest";
        let busybox = "docker-image://docker.io/library/busybox:latest";
        let to_busybox =
            vec![rule(Convert, "docker-image://*/alpine:*", Some("docker-image://busybox"))];
        assert_eq!(
            converted(std::slice::from_ref(&to_busybox), "docker-image://alpine").unwrap(),
            busybox
        );
        // What it is converted to is looked at by all of them, also by those before.
        let policies = [vec![rule(Deny, busybox, None)], to_busybox];
        let denied = converted(&policies, alpine).unwrap_err();
        assert!(denied.to_string().contains(busybox), "{denied}");
        assert_eq!(converted(&policies, "local://context").unwrap(), "local://context");
        // The last rule that matches has the last word.
        let rules = vec![rule(Deny, "*", None), rule(Allow, "local://*", None)];
        assert_eq!(converted(std::slice::from_ref(&rules), "local://a").unwrap(), "local://a");
        assert!(converted(&[rules], alpine).unwrap_err().is::<Denied>());
    }

    #[test]
    fn conversions_in_a_circle_end() {
        let to = |from: &str, to: &str| rule(PolicyAction::Convert, from, Some(to));
        let policy = vec![to("local://a", "local://b"), to("local://b", "local://a")];
        assert!(converted(&[policy], "local://a").unwrap_err().is::<Endless>());
    }
}
