//! `dunlin man`

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man;
use dunlin_api::Exit;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Output;

/// Words of `dunlin man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where to write them: one for each command, such as dunlin-deploy.1
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// Writes the pages.
pub fn run(args: &ManArgs, out: &mut Output) -> Result<Exit, Failure> {
    let written = write_pages(&args.directory)?;
    out.line(format!(
        "{} pages in {}; for example: man {}",
        written.len(),
        args.directory.display(),
        args.directory.join("dunlin-deploy.1").display()
    ))?;
    out.flush()?;
    Ok(Exit::Ok)
}

/// Writes a page for each command into a directory, which is made if there is none.
pub(super) fn write_pages(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let trouble = |source| Failure::System {
        message: format!("cannot write manual pages into {}", directory.display()),
        source,
    };
    fs::create_dir_all(directory).map_err(trouble)?;
    let mut written = Vec::new();
    for (name, page) in pages().map_err(trouble)? {
        let path = directory.join(format!("{name}.1"));
        fs::write(&path, page).map_err(trouble)?;
        written.push(path);
    }
    Ok(written)
}

/// All pages by name.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut pages = Vec::new();
    let mut command = Cli::command();
    // Hands the global options down, and gives subcommands their full names.
    command.build();
    collect(&command, "dunlin", &mut pages)?;
    Ok(pages)
}

fn collect(
    command: &clap::Command,
    name: &str,
    pages: &mut Vec<(String, Vec<u8>)>,
) -> std::io::Result<()> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    pages.push((name.to_owned(), page));
    let others = command.get_subcommands();
    for inner in others.filter(|c| c.get_name() != "help" && !c.is_hide_set()) {
        collect(inner, &format!("{name}-{}", inner.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_words() {
        let pages = pages().unwrap();
        let page = |name: &str| {
            let found = pages.iter().find(|(known, _)| known == name);
            let (_, page) = found.unwrap_or_else(|| panic!("no page {name}"));
            String::from_utf8(page.clone()).unwrap()
        };
        for command in Cli::command().get_subcommands() {
            page(&format!("dunlin-{}", command.get_name()));
        }
        page("dunlin-context-add");
        let deploy = page("dunlin-deploy");
        assert!(deploy.contains("detach"), "{deploy}");
        let all = page("dunlin");
        assert!(all.contains("dunlin\\-deploy(1)"), "{all}");
        assert!(all.contains("Exit codes"), "{all}");
    }

    #[test]
    fn pages_are_written_where_one_says() {
        let folder = tempfile::tempdir().unwrap();
        let written = write_pages(&folder.path().join("man1")).unwrap();
        assert!(written.len() > 30, "{}", written.len());
        assert!(written.iter().all(|path| path.exists()));
    }
}
