use indexmap::{IndexMap, IndexSet};

use crate::dockerfile::Dockerfile;
use crate::expand::{Expander, Variables};
use crate::instruction::ArgDefinition;
use crate::{Location, ParseError};

/// A platform, as arguments describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformArgs {
    /// The whole: `linux/arm/v7`.
    pub platform: String,
    /// `linux`
    pub os: String,
    /// The operating system's version, empty on Linux.
    pub os_version: String,
    /// `arm`
    pub arch: String,
    /// `v7`
    pub variant: String,
}

/// The arguments that every build has, before any ARG: those about the platforms it runs on and
/// builds for, and `TARGETSTAGE`. Build arguments of the same names win.
pub fn automatic_args(
    build: &PlatformArgs,
    target: &PlatformArgs,
    target_stage: &str,
    build_args: &dyn Variables,
) -> IndexMap<String, String> {
    let stage = if target_stage.is_empty() { "default" } else { target_stage };
    [
        ("BUILDPLATFORM", build.platform.as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", &build.os_version),
        ("BUILDARCH", &build.arch),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", &target.platform),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", &target.os_version),
        ("TARGETARCH", &target.arch),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), build_args.get(name).unwrap_or(value).to_owned()))
    .collect()
}

/// The arguments that FROM can use, and that stages can ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalArgs {
    /// Values by name: the automatic ones, then those declared before the first stage.
    pub values: IndexMap<String, String>,
    /// What was declared before the first stage, the last declaration of each name.
    pub declared: IndexMap<String, DeclaredArg>,
}

/// An ARG that was declared, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredArg {
    /// The declaration.
    pub definition: ArgDefinition,
    /// Its lines.
    pub location: Location,
    /// Its value, if it has one.
    pub value: Option<String>,
    /// The arguments that its default was made of.
    pub uses: IndexSet<String>,
}

impl GlobalArgs {
    /// Evaluates the ARGs before the first stage, in order. A build argument replaces a default.
    pub fn evaluate(
        file: &Dockerfile,
        automatic: IndexMap<String, String>,
        build_args: &dyn Variables,
    ) -> Result<Self, ParseError> {
        let expander = Expander::new(file.directives.escape);
        let mut globals = Self { values: automatic, declared: IndexMap::new() };
        for arg in &file.global_args {
            for definition in &arg.definitions {
                globals
                    .declare(definition, arg.location, &expander, build_args)
                    .map_err(|error| ParseError::new(error.into(), arg.location))?;
            }
        }
        Ok(globals)
    }

    fn declare(
        &mut self,
        definition: &ArgDefinition,
        location: Location,
        expander: &Expander,
        build_args: &dyn Variables,
    ) -> Result<(), crate::expand::ExpandError> {
        let name = &definition.name;
        let mut uses = IndexSet::new();
        let value = match (build_args.get(name), &definition.default) {
            (Some(value), _) => Some(value.to_owned()),
            (None, Some(default)) => {
                let expansion = expander.expand(default, &self.values)?;
                uses = expansion.used;
                // A default made of the argument itself uses what the earlier one used.
                if uses.shift_remove(name)
                    && let Some(earlier) = self.declared.get(name)
                {
                    uses.extend(earlier.uses.iter().cloned());
                }
                Some(expansion.text)
            }
            (None, None) => None,
        };
        if let Some(value) = &value {
            self.values.insert(name.clone(), value.clone());
        }
        let declared = DeclaredArg { definition: definition.clone(), location, value, uses };
        self.declared.insert(name.clone(), declared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> IndexMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn platform_arguments_can_be_overridden() {
        let platform = PlatformArgs {
            platform: "linux/arm/v7".to_owned(),
            os: "linux".to_owned(),
            arch: "arm".to_owned(),
            variant: "v7".to_owned(),
            ..PlatformArgs::default()
        };
        let args = automatic_args(&platform, &platform, "", &map(&[("TARGETARCH", "mips")]));
        assert_eq!(args["BUILDARCH"], "arm");
        assert_eq!(args["TARGETARCH"], "mips");
        assert_eq!(args["TARGETVARIANT"], "v7");
        assert_eq!(args["TARGETSTAGE"], "default");
        assert_eq!(args["TARGETOSVERSION"], "");
    }

    #[test]
    fn global_arguments_are_evaluated_in_order() {
        let source = b"ARG A=1 B=$A.2\nARG A=3\nARG C\nARG D=$OS-$C$B\nARG B=$B-x\nFROM x\n";
        let file = Dockerfile::parse(source).unwrap();
        let automatic = map(&[("OS", "linux")]);
        let globals = GlobalArgs::evaluate(&file, automatic, &map(&[("A", "9"), ("E", "e")]));
        let globals = globals.unwrap();
        let expected = map(&[("OS", "linux"), ("A", "9"), ("B", "9.2-x"), ("D", "linux-9.2")]);
        assert_eq!(globals.values, expected);
        assert_eq!(globals.declared["C"].value, None);
        assert_eq!(globals.declared["B"].uses, IndexSet::from(["A".to_owned()]));
        assert!(!globals.declared.contains_key("E"));
    }

    #[test]
    fn a_mistake_is_located() {
        let file = Dockerfile::parse(b"ARG A\nARG B=${A:?unset}\nFROM x\n").unwrap();
        let error = GlobalArgs::evaluate(&file, IndexMap::new(), &map(&[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dockerfile parse error on line 2: failed to process \"${A:?unset}\": A: unset"
        );
    }
}
