//! `dunlin volume`

use std::io::{IsTerminal as _, stdin, stdout};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, Subcommand};
use dunlin_api::client::{ClientError, ExecInput, ExecOutput};
use dunlin_api::{
    ErrorBody, ErrorCode, ExecFrame, Exit, PING_EVERY, Volume, VolumeCopy, VolumeCreated,
    VolumeQuery, VolumeTarget,
};
use dunlin_state::model::VolumeId;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Bytes of an archive in one frame.
const PIECE: usize = 32 * 1024;

/// Words of `dunlin volume`.
#[derive(Debug, Args)]
pub struct VolumeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// What to do with volumes.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// List the volumes and the nodes that have their data
    Ls,
    /// Show a volume, who uses it and who has data of it
    Inspect(VolumeName),
    /// Make an empty volume on a node, unless it is there
    Create(CreateArgs),
    /// Delete the data of a volume that no service uses
    Rm(RmArgs),
    /// Write the data of a volume as a tar archive
    Export(ExportArgs),
    /// Take a tar archive as the data of a volume
    Import(ImportArgs),
}

/// Which volume.
#[derive(Debug, Args)]
pub struct VolumeName {
    /// The volume, with @SERVICE.SLOT for one that a replica has for itself
    #[arg(value_name = "VOLUME")]
    pub volume: String,
}

/// Words of `dunlin volume create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The volume
    #[command(flatten)]
    pub name: VolumeName,
    /// The node that gets it; the one that is asked by default
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Begin with an empty one although a node has data, which does not count any more
    #[arg(short, long)]
    pub force: bool,
}

/// Words of `dunlin volume rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Only the copy of this node
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// The volumes
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}

/// Words of `dunlin volume export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The volume
    #[command(flatten)]
    pub name: VolumeName,
    /// The copy of this node, instead of the one that counts
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Words of `dunlin volume import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The volume
    #[command(flatten)]
    pub name: VolumeName,
    /// The node that gets the data; the one that has it now, or else the one that is asked
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Take the archive in place of data that there is
    #[arg(short, long)]
    pub force: bool,
    /// Read from this file instead of standard input
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// Lists volumes, or does something with one.
pub async fn run(args: &VolumeArgs, context: &mut Context) -> Result<Exit, Failure> {
    match &args.command {
        VolumeCommand::Ls => list(context).await,
        VolumeCommand::Inspect(args) => inspect(args, context).await,
        VolumeCommand::Create(args) => create(args, context).await,
        VolumeCommand::Rm(args) => remove(args, context).await,
        VolumeCommand::Export(args) => export(args, context).await,
        VolumeCommand::Import(args) => import(args, context).await,
    }
}

/// A name without a namespace is one in the namespace of this command.
fn volume(text: &str, context: &Context) -> Result<VolumeId, Failure> {
    let full = match (text.contains('/'), &context.namespace) {
        (false, Some(namespace)) => format!("{namespace}/{text}"),
        (true, _) | (false, None) => text.to_owned(),
    };
    full.parse()
        .map_err(|bad: dunlin_state::model::BadVolumeName| Failure::usage(bad.to_string()))
}

async fn list(context: &mut Context) -> Result<Exit, Failure> {
    let namespace = context.namespace.clone();
    let query = VolumeQuery { namespace };
    let volumes = context.client.volumes(&query).await?;
    if context.json {
        context.out.json(&volumes)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["VOLUME", "NODE", "SINCE", "USED BY", "STATE"]).prose(&["STATE"]);
    for volume in &volumes {
        for copy in &volume.copies {
            table.row([
                Cell::from(volume.volume.to_string()),
                Cell::from(&copy.node_name),
                Cell::from(context.out.age(copy.since)),
                Cell::from(users(volume)),
                state(copy),
            ]);
        }
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

fn users(volume: &Volume) -> String {
    let users: Vec<String> = volume.used_by.iter().map(ToString::to_string).collect();
    users.join(" ")
}

fn state(copy: &VolumeCopy) -> Cell {
    match (copy.counts, copy.reachable) {
        (true, false) => Cell::toned("its node does not answer", Tone::Bad),
        (true, true) if !copy.used => Cell::from("reserved"),
        (true, true) => Cell::toned("in use", Tone::Good),
        (false, _) => Cell::toned("an older copy, not used", Tone::Dim),
    }
}

async fn inspect(args: &VolumeName, context: &mut Context) -> Result<Exit, Failure> {
    let id = volume(&args.volume, context)?;
    let found = context.client.volume(&id).await?;
    if context.json {
        context.out.json(&found)?;
        return Ok(Exit::Ok);
    }
    context.out.line(format!("Volume:   {}", found.volume))?;
    let users = users(&found);
    let users = if users.is_empty() { "nobody" } else { &users };
    context.out.line(format!("Used by:  {users}"))?;
    for copy in &found.copies {
        let age = context.out.age(copy.since);
        let what = match (copy.counts, copy.reachable) {
            (true, true) => "the copy that counts",
            (true, false) => "the copy that counts; the node does not answer",
            (false, _) => "an older copy, not used",
        };
        let text = format!("Data on:  {} since {age}, {what}", copy.node_name);
        context.out.line(text)?;
    }
    Ok(Exit::Ok)
}

async fn create(args: &CreateArgs, context: &mut Context) -> Result<Exit, Failure> {
    let id = volume(&args.name.volume, context)?;
    let target = VolumeTarget {
        node: args.node.clone(),
        force: args.force,
    };
    let made = context.client.create_volume(&id, &target).await?;
    if context.json {
        context.out.json(&made)?;
        return Ok(Exit::Ok);
    }
    let VolumeCreated {
        volume, node_name, ..
    } = &made;
    let text = match made.created {
        true => format!("{volume} created on {node_name}"),
        false => format!("{volume} is on {node_name}"),
    };
    context.out.line(text)?;
    if !made.superseded.is_empty() {
        let nodes = made.superseded.join(", ");
        let text = format!("the data of {volume} on {nodes} does not count any more");
        context.out.note(text)?;
    }
    Ok(Exit::Ok)
}

async fn remove(args: &RmArgs, context: &mut Context) -> Result<Exit, Failure> {
    let mut exit = Exit::Ok;
    let mut removals = Vec::new();
    for text in &args.volumes {
        let id = volume(text, context)?;
        let target = VolumeTarget {
            node: args.node.clone(),
            force: false,
        };
        let removal = context.client.remove_volume(&id, &target).await?;
        if !context.json {
            if !removal.removed.is_empty() {
                let nodes = removal.removed.join(", ");
                context.out.line(format!("{id} removed from {nodes}"))?;
            }
            if !removal.unreachable.is_empty() {
                let nodes = removal.unreachable.join(", ");
                let text = format!("{id} is still on {nodes}, which cannot be reached");
                context.out.note(text)?;
            }
        }
        if !removal.unreachable.is_empty() {
            exit = Exit::Unreachable;
        }
        removals.push(removal);
    }
    if context.json {
        context.out.json(&removals)?;
    }
    Ok(exit)
}

async fn export(args: &ExportArgs, context: &mut Context) -> Result<Exit, Failure> {
    let id = volume(&args.name.volume, context)?;
    if args.output.is_none() && stdout().is_terminal() {
        return Err(Failure::Usage {
            message: "an archive is nothing for a terminal".to_owned(),
            hint: Some("name a file with -o, or redirect the output".to_owned()),
        });
    }
    let target = VolumeTarget {
        node: args.node.clone(),
        force: false,
    };
    // Kept to the end: a request that has ended ends the answer.
    let (_input, output) = context.client.export_volume(&id, &target).await?;
    match &args.output {
        None => receive(output, &mut tokio::io::stdout(), context).await,
        Some(path) => {
            let mut file = File::create(path).await.map_err(|e| with(path, e))?;
            receive(output, &mut file, context).await?;
            file.sync_all().await.map_err(|e| with(path, e))?;
            context.out.note(format!("{id} is in {}", path.display()))?;
            Ok(Exit::Ok)
        }
    }
}

fn with(path: &Path, source: std::io::Error) -> Failure {
    Failure::System {
        message: format!("cannot use {}", path.display()),
        source,
    }
}

async fn receive(
    mut output: ExecOutput,
    to: &mut (impl AsyncWrite + Unpin),
    context: &mut Context,
) -> Result<Exit, Failure> {
    while let Some(frame) = output.next().await? {
        match frame {
            ExecFrame::Output(bytes) => to.write_all(&bytes).await?,
            ExecFrame::Error(note) => {
                let note = String::from_utf8_lossy(&note);
                context.out.note(note.trim_end())?;
            }
            ExecFrame::Exit(_) => {
                to.flush().await?;
                return Ok(Exit::Ok);
            }
            ExecFrame::Failed(body) => return Err(ClientError::Answered(body).into()),
            ExecFrame::Started(_)
            | ExecFrame::Ping
            | ExecFrame::Start(_)
            | ExecFrame::Input(_)
            | ExecFrame::InputEnd
            | ExecFrame::Resize(_) => {}
        }
    }
    Err(cut())
}

fn cut() -> Failure {
    let text = "the node closed the connection before the archive had ended";
    let body = ErrorBody::new(ErrorCode::PeerUnreachable, text);
    ClientError::Answered(body).into()
}

async fn import(args: &ImportArgs, context: &mut Context) -> Result<Exit, Failure> {
    let id = volume(&args.name.volume, context)?;
    if args.input.is_none() && stdin().is_terminal() {
        return Err(Failure::Usage {
            message: "an archive does not come from a terminal".to_owned(),
            hint: Some("name a file with -i, or pass one through standard input".to_owned()),
        });
    }
    let target = VolumeTarget {
        node: args.node.clone(),
        force: args.force,
    };
    let mut file = match &args.input {
        Some(path) => Some(File::open(path).await.map_err(|e| with(path, e))?),
        None => None,
    };
    let (mut input, output) = context.client.import_volume(&id, &target).await?;
    feed(file.as_mut(), &mut input, output, context).await?;
    context.out.line(format!("{id} imported"))?;
    Ok(Exit::Ok)
}

/// Sends the archive, and listens for how that ends.
async fn feed(
    file: Option<&mut File>,
    input: &mut ExecInput,
    output: ExecOutput,
    context: &mut Context,
) -> Result<Exit, Failure> {
    let mut sink = tokio::io::sink();
    let mut ending = std::pin::pin!(receive(output, &mut sink, context));
    let sent = async {
        match file {
            Some(file) => send(file, input).await,
            None => send(&mut tokio::io::stdin(), input).await,
        }
    };
    tokio::select! {
        // It ends first only when it fails.
        ended = &mut ending => ended,
        sent = sent => {
            sent?;
            ending.await
        }
    }
}

/// Sends an archive, with a sign of life while nothing of it comes.
async fn send(from: &mut (impl AsyncRead + Unpin), to: &mut ExecInput) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE];
    loop {
        let frame = match timeout(PING_EVERY, from.read(&mut buffer)).await {
            Ok(Ok(0)) => ExecFrame::InputEnd,
            Ok(Ok(count)) => ExecFrame::Input(Bytes::copy_from_slice(&buffer[..count])),
            Ok(Err(error)) => return Err(error.into()),
            Err(_elapsed) => ExecFrame::Ping,
        };
        let last = matches!(frame, ExecFrame::InputEnd);
        // When nobody takes it, the other direction says why.
        if !to.send(&frame).await || last {
            return Ok(());
        }
    }
}
