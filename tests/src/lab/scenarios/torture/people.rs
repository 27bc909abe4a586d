//! What people change meanwhile, on all hosts at once.

use std::time::Duration;

use dunlin_api::client::{Client, ClientError};
use dunlin_api::{AvailabilityRequest, DeployRequest, DeployService, ErrorCode};
use dunlin_state::model::{Availability, FailureAction, RuntimeKind, ServiceSpec};
use rand::RngExt as _;
use tokio::task::JoinSet;

use super::calls::SERVER;
use super::ledger::{Outcome, PORT, SERVICES, TAG};
use super::{Lab, Torture};
use crate::lab::IMAGE;
use crate::lab::net::LabError;
use crate::lab::scenarios::{key, whoami};

/// People do not wait long for a host that is frozen.
const PATIENCE: Duration = Duration::from_secs(2);
/// Replicas of a service at most: few, so that rollouts end within the time for rest.
const MOST_REPLICAS: u32 = 4;

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A service with this number in its specification, and so many replicas.
    Deploy {
        service: usize,
        tag: u64,
        replicas: u32,
    },
    /// So many replicas.
    Scale { service: usize, replicas: u32 },
    /// No such service.
    Remove { service: usize },
    /// What a host shall take.
    Availability {
        host: String,
        availability: Availability,
    },
}

/// The name of a service.
pub(super) fn name(service: usize) -> String {
    format!("t{service}")
}

impl Torture {
    /// Some people ask for something, each on another host, all at once. What came of it is known
    /// when this returns.
    pub(super) async fn people(&mut self, lab: &Lab) {
        let engines = lab.hosts[0].has_engine();
        let mut asked = JoinSet::new();
        for at in 0..lab.hosts.len() {
            if self.rng.random_ratio(1, 2) {
                continue;
            }
            let change = self.change(lab.hosts.len());
            let client = lab.hosts[at].client().with_timeout(PATIENCE);
            asked.spawn(async move {
                let outcome = outcome(ask(&client, &change, engines).await);
                (at, change, outcome)
            });
        }
        while let Some(done) = asked.join_next().await {
            let Ok((at, change, outcome)) = done else {
                self.story.note("a task of the lab itself has failed");
                continue;
            };
            self.story.note(&format!("h{at}: {change:?}: {outcome:?}"));
            self.ledger.record(at, &change, &outcome);
            if let Change::Availability { host, .. } = change {
                self.touched.insert(host);
            }
        }
    }

    fn change(&mut self, hosts: usize) -> Change {
        let service = self.rng.random_range(0..SERVICES);
        let replicas = self.rng.random_range(0..=MOST_REPLICAS);
        // Only some hosts are ever drained, so that the others have something to do.
        let host = hosts - 1 - self.rng.random_range(0..(hosts - 1).clamp(1, 2));
        let kind = self.rng.random_range(0..100);
        match kind {
            0..40 => Change::Deploy {
                service,
                tag: self.ledger.next_tag(),
                replicas,
            },
            40..75 => Change::Scale { service, replicas },
            75..85 => Change::Remove { service },
            _rest => Change::Availability {
                host: format!("h{host}"),
                availability: match kind % 3 {
                    0 => Availability::Active,
                    1 => Availability::Cordoned,
                    _rest => Availability::Drained,
                },
            },
        }
    }

    /// Removes all services, as the last thing.
    pub(super) async fn remove_all(&mut self, lab: &Lab) -> Result<(), LabError> {
        for service in 0..SERVICES {
            let change = Change::Remove { service };
            let outcome = outcome(ask(&lab.hosts[0].client(), &change, false).await);
            self.story.note(&format!("h0: {change:?}: {outcome:?}"));
            self.ledger.record(0, &change, &outcome);
        }
        Ok(())
    }
}

async fn ask(client: &Client, change: &Change, engines: bool) -> Result<(), ClientError> {
    // The lab's own names are good ones.
    let key = |service: usize| key(&name(service));
    match change {
        Change::Deploy {
            service,
            tag,
            replicas,
        } => {
            let Ok(service_key) = key(*service) else {
                return Ok(());
            };
            let services = vec![DeployService {
                service: service_key,
                spec: spec(*service, *tag, engines),
                replicas: Some(*replicas),
                canary: None,
            }];
            client.deploy(&DeployRequest { services }).await.map(drop)
        }
        Change::Scale { service, replicas } => match key(*service) {
            Ok(key) => client.scale(&key, *replicas).await.map(drop),
            Err(_) => Ok(()),
        },
        Change::Remove { service } => match key(*service) {
            Ok(key) => client.remove(&key).await.map(drop),
            Err(_) => Ok(()),
        },
        Change::Availability { host, availability } => {
            let availability = *availability;
            let request = AvailabilityRequest { availability };
            client.set_availability(host, request).await.map(drop)
        }
    }
}

/// Containers for a third of the services, where there are engines.
fn spec(service: usize, tag: u64, engines: bool) -> ServiceSpec {
    let mut spec = match engines && service % 3 == 2 {
        true => contained(),
        false => whoami(),
    };
    spec.ports[0].published = Some(PORT + service as u16);
    spec.environment.insert(TAG.to_owned(), tag.to_string());
    // A host with a full disk starts nothing, and an update that fails there would wait for people.
    spec.update.failure_action = FailureAction::Continue;
    spec
}

/// A container that says who it is. Its shell hears signals, which a first process without a handler does
/// not.
fn contained() -> ServiceSpec {
    let answer = r#"{"service":"%s","slot":%s,"node":"%s","epoch":%s}"#;
    let script = format!(
        "trap 'exit 0' TERM; busybox mkdir -p /www && printf '{answer}' \"$DUNLIN_SERVICE\" \"$DUNLIN_SLOT\" \
         \"$DUNLIN_NODE\" \"$DUNLIN_EPOCH\" >/www/index.html; busybox {SERVER} -f -p 80 -h /www & wait"
    );
    ServiceSpec {
        image: IMAGE.to_owned(),
        command: vec!["bash".to_owned(), "-c".to_owned(), script],
        runtime: RuntimeKind::Docker,
        ..whoami()
    }
}

/// Whether it was accepted, surely not, or maybe.
fn outcome(answer: Result<(), ClientError>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Accepted,
        Err(ClientError::NotRunning { .. }) => Outcome::Refused("not running".to_owned()),
        Err(ClientError::Answered(body))
            if !matches!(body.code, ErrorCode::Timeout | ErrorCode::Internal) =>
        {
            Outcome::Refused(body.to_string())
        }
        Err(error) => Outcome::Unclear(error.to_string()),
    }
}
