//! Tests of the Compose parser.

mod autoscale;
mod depend;
mod faults;
mod hostile;
mod items;
mod job;
mod meaning;
mod networks;
mod placing;
mod real;
mod values;

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::Path;

use super::{ComposeError, Context, Files, Project, ProjectService, parse};

/// Files that exist only in a test.
#[derive(Default)]
struct FakeFiles(BTreeMap<String, String>);

impl Files for FakeFiles {
    fn read(&self, path: &Path) -> std::io::Result<String> {
        let text = self.0.get(&path.display().to_string()).cloned();
        text.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such file"))
    }
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn parse_with(
    text: &str,
    vars: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<Project, Vec<ComposeError>> {
    let variables_of_test = variables(vars);
    let files = FakeFiles(variables(files));
    parse(
        text,
        &Context {
            file: "compose.yaml",
            directory: Some(Path::new("/srv/shop")),
            project: None,
            namespace: None,
            variables: &variables_of_test,
            files: &files,
        },
    )
}

fn parse_text(text: &str) -> Result<Project, Vec<ComposeError>> {
    parse_with(text, &[("HOME", "/home/ann")], &[])
}

/// The project, or a panic that shows the faults as a person sees them.
#[track_caller]
fn good(text: &str) -> Project {
    match parse_text(text) {
        Ok(project) => project,
        Err(errors) => panic!("{}", shown(&errors)),
    }
}

/// The faults as a person sees them.
#[track_caller]
fn bad(text: &str) -> String {
    shown(&parse_text(text).expect_err("faulty"))
}

fn shown(errors: &[ComposeError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join("\n\n")
}

/// The one service of a file made of `image: a` and these lines.
#[track_caller]
fn service(lines: &str) -> ProjectService {
    let mut project = good(&file(lines));
    assert_eq!(project.services.len(), 1);
    project.services.remove(0)
}

/// A file with one service; `lines` start at line 4, and are indented by 4.
fn file(lines: &str) -> String {
    let indented: Vec<String> = lines.lines().map(|l| format!("    {l}")).collect();
    format!("services:\n  web:\n    image: a\n{}\n", indented.join("\n"))
}
