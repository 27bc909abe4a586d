//! `dunlin label`

use clap::Args;
use dunlin_api::{Exit, LabelsRequest};

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin label`.
#[derive(Debug, Args)]
pub struct LabelArgs {
    /// The node
    pub node: String,
    /// Labels to set, and with a final '-' to drop
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    pub labels: Vec<String>,
}

/// Changes the labels that the cluster gives a node.
pub async fn run(args: &LabelArgs, context: &mut Context) -> Result<Exit, Failure> {
    let request = request(&args.labels)?;
    let answer = context.client.set_labels(&args.node, &request).await?;
    if context.json {
        context.out.json(&answer)?;
    } else {
        let word = if answer.changed {
            "changed"
        } else {
            "as they were"
        };
        context
            .out
            .line(format!("labels of {}: {word}", args.node))?;
    }
    Ok(Exit::Ok)
}

fn request(words: &[String]) -> Result<LabelsRequest, Failure> {
    let mut request = LabelsRequest::default();
    for word in words {
        match (word.split_once('='), word.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => {
                request.set.insert(key.to_owned(), value.to_owned());
            }
            (None, Some(key)) if !key.is_empty() => request.remove.push(key.to_owned()),
            (Some(_) | None, _) => {
                let message = format!("'{word}' is neither KEY=VALUE nor KEY-");
                return Err(Failure::usage(message));
            }
        }
    }
    Ok(request)
}
