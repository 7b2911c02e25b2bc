//! Stages: bases, references, targets.

use std::fmt::Write as _;

use indexmap::IndexMap;
use kiln_dockerfile::expand::NoVariables;
use kiln_dockerfile::instruction::parse_trigger;
use kiln_dockerfile::lint::Linter;
use kiln_dockerfile::plan::{Base, GlobalArgs, Plan, Reference};
use kiln_dockerfile::{Dockerfile, Location, ParseError};

fn plan(source: &str) -> Result<Plan, ParseError> {
    plan_replacing(source, "")
}

fn plan_replacing(source: &str, replaced: &str) -> Result<Plan, ParseError> {
    let file = Dockerfile::parse(source.as_bytes())?;
    let globals = GlobalArgs::evaluate(&file, IndexMap::new(), &NoVariables)?;
    Plan::new(&file, &globals, |name| name == replaced, &mut Linter::default())
}

fn bases(plan: &Plan) -> Vec<Base> {
    plan.stages().iter().map(|stage| stage.base.clone()).collect()
}

fn image(name: &str) -> Base {
    Base::Image(name.to_owned())
}

#[test]
fn a_base_is_an_earlier_stage_or_an_image() {
    let plan = plan(
        "ARG V=1\nFROM scratch AS a\nFROM a AS b\nFROM later\nFROM x:$V AS later\nFROM A\n\
         FROM c AS b\nFROM b\n",
    );
    let expected = [
        Base::Scratch,
        Base::Stage(0),
        image("later"),
        image("x:1"),
        image("A"),
        image("c"),
        Base::Stage(5),
    ];
    let plan = plan.unwrap();
    assert_eq!(bases(&plan), expected);
    assert!(plan.stages()[3].used_args.contains("V"));
}

#[test]
fn uses_are_stages_by_name_or_index_and_images() {
    let plan = plan(
        "FROM x AS a\nFROM y\nCOPY --from=A . .\nCOPY --from=0 . .\nCOPY --from=img:1 . .\n\
         RUN --mount=from=a,target=/a --mount=from=scratch,target=/b \
         --mount=from=0,target=/c --mount=type=cache,target=/d x\n",
    );
    let plan = plan.unwrap();
    let uses: Vec<Reference> =
        plan.stages()[1].uses.iter().map(|used| used.reference.clone()).collect();
    let image = |name: &str| Reference::Image(name.to_owned());
    let stage = Reference::Stage(0);
    let expected =
        [stage.clone(), stage.clone(), image("img:1"), stage, Reference::Scratch, image("0")];
    assert_eq!(uses, expected);
}

#[test]
fn a_target_is_a_stage_by_name_or_the_last() {
    let plan = plan("FROM a AS build\nFROM b AS test\nFROM c\n").unwrap();
    assert_eq!(plan.target(None).unwrap(), 2);
    assert_eq!(plan.target(Some("")).unwrap(), 2);
    assert_eq!(plan.target(Some("Build")).unwrap(), 0);
    let error = plan.target(Some("tset")).unwrap_err();
    assert_eq!(error.to_string(), "target stage \"tset\" could not be found (did you mean test?)");
    assert_eq!(error.locations(), []);
}

#[test]
fn stages_that_a_target_does_not_need_are_not_reachable() {
    let plan = plan(
        "FROM a AS one\nFROM b AS two\nFROM one AS three\nFROM d\nCOPY --from=three . .\n\
         FROM e AS five\nRUN --mount=from=two,target=/x y\n",
    );
    let plan = plan.unwrap();
    assert_eq!(plan.reachable([3]).unwrap(), [0, 2, 3]);
    assert_eq!(plan.reachable([4]).unwrap(), [1, 4]);
    assert_eq!(plan.reachable([0]).unwrap(), [0]);
}

#[test]
fn stages_have_names_in_steps_unless_there_is_only_one() {
    let names = |source: &str| -> Vec<String> {
        let plan = plan(source).unwrap();
        plan.stages().iter().map(|stage| stage.display_name.clone()).collect()
    };
    assert_eq!(names("FROM a\nRUN b\n"), [""]);
    assert_eq!(names("FROM a AS b\n"), [""]);
    assert_eq!(names("FROM a\nCOPY --from=b . .\n"), ["stage-0"]);
    assert_eq!(names("FROM a\nRUN --mount=type=cache,target=/b c\n"), ["stage-0"]);
    assert_eq!(names("FROM a\nFROM b AS c\n"), ["stage-0", "c"]);
}

#[test]
fn a_named_context_takes_the_place_of_a_stage() {
    let source = "FROM a AS b\nCOPY --from=later . .\nFROM b\nFROM c AS later\nFROM x\n\
                  COPY --from=b . .\n";
    let plan = plan_replacing(source, "b").unwrap();
    assert_eq!(plan.stages()[0].base, Base::Replaced);
    assert_eq!(plan.stages()[0].uses, []);
    assert_eq!(plan.reachable([3]).unwrap(), [0, 3]);
}

#[test]
fn triggers_add_uses() {
    let mut plan = plan("FROM a AS tools\nFROM b\n").unwrap();
    let trigger = |text: &str| parse_trigger(text, Location::line(2)).unwrap();
    assert!(!plan.add_instructions(1, &[trigger("RUN make")]).unwrap());
    assert!(plan.add_instructions(1, &[trigger("COPY --from=tools a b")]).unwrap());
    assert_eq!(plan.reachable([1]).unwrap(), [0, 1]);
}

#[test]
fn a_platform_that_is_nearly_a_variable_is_corrected() {
    let source = b"ARG BUILDER=linux\nFROM --platform=$BUILDRE a\n";
    let file = Dockerfile::parse(source).unwrap();
    let globals = GlobalArgs::evaluate(&file, IndexMap::new(), &NoVariables).unwrap();
    let error = Plan::new(&file, &globals, |_| false, &mut Linter::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dockerfile parse error on line 2: empty platform value from expression $BUILDRE (did you \
         mean BUILDER?)"
    );
}

#[test]
fn mistakes_are_named_with_every_line_that_leads_to_them() {
    let failure = |source: &str| {
        let error = plan(source).and_then(|plan| plan.reachable([plan.stages().len() - 1]));
        let error = error.unwrap_err();
        let lines: Vec<String> = error.locations().iter().map(ToString::to_string).collect();
        format!("{} [{}]", error.message(), lines.join(" "))
    };
    insta::assert_snapshot!(
        [
            "FROM a AS b\nCOPY --from=b . .\n",
            "FROM a\nCOPY --from=0 . .\n",
            "FROM a AS b\nRUN --mount=from=c,target=/x y\nFROM a AS c\nCOPY --from=b . .\n",
            "FROM a AS b\nCOPY --from=d . .\nFROM b AS c\nFROM c AS d\n",
            "FROM a AS x\nFROM b AS y\nCOPY --from=z . .\nFROM c AS z\nFROM y\n",
            "FROM a\nCOPY --from=1 . .\n",
            "FROM a\nCOPY --from=-1 . .\n",
            "FROM a\nCOPY --from=$x . .\n",
            "FROM $x\n",
            "FROM --platform=$x a\n",
            "FROM ${x:?need x}\n",
        ]
        .map(failure)
        .join("\n")
    );
}

#[test]
fn thousands_of_stages_are_planned_without_recursion() {
    let mut source = "FROM a AS s0\n".to_owned();
    for index in 1..50_000 {
        let _ = writeln!(source, "FROM s{} AS s{index}", index - 1);
    }
    let plan = plan(&source).unwrap();
    assert_eq!(plan.reachable([49_999]).unwrap().len(), 50_000);
}
