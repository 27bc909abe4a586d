//! The words alone.

use clap::Parser;

use super::*;
use crate::args::Command;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn lines_that_are_understood() {
    for line in [
        "dunlin ls",
        "dunlin ls --json -n shop",
        "dunlin --json ls -q",
        "dunlin -H unix:///a/b.sock ps web --node n1",
        "dunlin ps shop/web -q",
        "dunlin nodes",
        "dunlin deploy",
        "dunlin deploy compose.yaml --detach",
        "dunlin deploy -f - --timeout 30s --env-file x.env",
        "dunlin deploy -f compose.yaml --timeout 0",
        "dunlin run nginx",
        "dunlin run --name a --replicas 3 -e K=V -e K2 -p 80:80 --cpus .5 -m 64m nginx",
        "dunlin run --constraint node.labels.a==b --runtime docker -l a=b alpine sleep 9",
        "dunlin run alpine ls -l",
        "dunlin run -- sh -c true",
        "dunlin run alpine -- ls -l",
        "dunlin run --global nginx",
        "dunlin scale web=3 api=0 shop/x=1 -d",
        "dunlin stop web api",
        "dunlin start web",
        "dunlin rm web",
        "dunlin inspect web api --json",
        "dunlin logs web",
        "dunlin logs -f --tail 10 --since 5m -t web.0",
        "dunlin logs --tail all shop/web.1",
        "dunlin explain web",
        "dunlin stats",
        "dunlin stats --no-stream shop/web --json",
        "dunlin exec web ls -la",
        "dunlin exec -it -e A=b -u nobody -w /tmp shop/web.0 -- sh -c true",
        "dunlin history web --json",
        "dunlin routes",
        "dunlin routes shop/web --json",
        "dunlin metrics dunlin_proxy",
        "dunlin events -f",
        "dunlin drain n1 --wait --timeout 1m",
        "dunlin cordon n1",
        "dunlin uncordon n1",
        "dunlin label n1 zone=north disk-",
        "dunlin leave --force",
        "dunlin doctor",
        "dunlin ticket --ttl 1h",
        "dunlin completions bash",
        "dunlin man pages",
        "dunlin install --root /mnt --join dunlin2-x",
        "dunlin version",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn lines_that_make_no_sense() {
    for line in [
        "dunlin nothing",
        "dunlin ls extra",
        "dunlin deploy a.yaml -f b.yaml",
        "dunlin deploy --timeout soon",
        "dunlin run",
        "dunlin run --global --replicas 2 nginx",
        "dunlin run --runtime lxc nginx",
        "dunlin scale",
        "dunlin scale web",
        "dunlin scale web=many",
        "dunlin scale =3",
        "dunlin scale web=-1",
        "dunlin rm",
        "dunlin inspect",
        "dunlin logs",
        "dunlin logs --tail some web",
        "dunlin exec web",
        "dunlin exec -e A web ls",
        "dunlin drain",
        "dunlin label n1",
        "dunlin completions tcsh2",
    ] {
        match parse(line) {
            Ok(cli) => panic!("{line}: {cli:?}"),
            Err(error) => assert!(error.use_stderr(), "{line}"),
        }
    }
}

#[test]
fn a_slip_gets_the_nearest_word() {
    for (line, near) in [
        ("dunlin depoly", "deploy"),
        ("dunlin lgos web", "logs"),
        ("dunlin ls --jsn", "--json"),
        ("dunlin run --replica 3 nginx", "--replicas"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(near), "{line}: {error}");
    }
}

#[test]
fn run_tells_images_from_host_processes() {
    let run = |line: &str| match parse(line).unwrap().command {
        Command::Run(args) => args,
        other => panic!("{other:?}"),
    };
    let args = run("dunlin run alpine ls -l --color");
    assert_eq!(args.image.as_deref(), Some("alpine"));
    assert_eq!(args.command, ["ls", "-l", "--color"]);
    let args = run("dunlin run --name x -- ls -l");
    assert_eq!(
        (args.image.as_deref(), args.name.as_deref()),
        (None, Some("x"))
    );
    assert_eq!(args.process, ["ls", "-l"]);
    let args = run("dunlin run alpine -- ls --help");
    assert_eq!(args.image.as_deref(), Some("alpine"));
    assert_eq!(args.process, ["ls", "--help"]);
}

#[test]
fn help_tells_the_exit_codes() {
    let error = parse("dunlin --help").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    let help = error.to_string();
    for exit in [
        Exit::Unreachable,
        Exit::TimedOut,
        Exit::NotFound,
        Exit::Refused,
    ] {
        let line = format!("\n  {}    ", exit.code());
        assert!(help.contains(&line), "{help}");
    }
    assert!(help.contains(&format!("\n  {}  ", Exit::Interrupted.code())));
}
