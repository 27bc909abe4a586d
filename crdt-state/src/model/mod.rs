//! The vocabulary of the whole project: identities, specifications, reports.

mod autoscale;
mod constraint;
mod depend;
mod ids;
mod item;
mod job;
mod network;
#[cfg(feature = "openapi")]
mod openapi;
mod order;
mod outputs;
mod policy;
mod quota;
mod rebalancing;
mod report;
mod resources;
mod spec;
mod text;
mod traffic;
mod vip;
mod volume;
mod window;
mod wishes;

pub use autoscale::{Aim, Autoscale, Load, MAX_SCALED, Metric, ScaleDecision, ScaleStamp, Season};
pub use constraint::{BadConstraint, Constraint, ConstraintOp, contradiction};
pub use depend::{Condition, Dependency};
pub use ids::{BadName, BadNodeId, NodeId, ServiceKey, Slot, SlotId, check_label};
pub use item::{
    BadItemName, ContentId, FileMount, ItemKey, ItemKind, MAX_ITEM_BYTES, is_file_name,
};
pub use job::{
    BadRunId, CatchUp, Hook, Hooks, Job, MAX_JOB_NAME, Overlap, RUN_MARK, RunId, Schedule,
};
pub use network::{BadNetwork, DEFAULT_NETWORK, Network, Networks, networks_of, share_network};
pub use order::beats;
pub use outputs::{
    BadOutputs, MAX_OUTPUT_BYTES, MAX_OUTPUTS, Outputs, output_variable, variable_part,
};
pub use policy::{MAX_PREEMPTED, Policy, Preempted};
pub use quota::{Excess, Quota, QuotaOf, Usage};
pub use rebalancing::Rebalancing;
pub use report::{
    Claim, Endpoint, ExitReport, Facts, MAX_HISTORY, MAX_LAST_WORDS, MAX_LAST_WORDS_BYTES,
    NodeRegister, NodeReport, Phase, PhaseChange, Trial, Version,
};
pub use resources::Resources;
pub use spec::{
    Availability, FailureAction, HealthCheck, HealthTest, HostPort, HttpTest, Mode, Placement,
    PortSpec, Protocol, PublishMode, RestartCondition, RestartPolicy, RuntimeKind, ServiceSpec,
    Strategy, UpdateOrder, UpdatePolicy,
};
pub use text::BadWord;
pub use traffic::{
    BadCidr, Balance, Cidr, Locality, ProxyProtocol, RateLimit, Split, TrafficPolicy,
};
pub use vip::{Vip, VipIndex, VipRange};
pub use volume::{
    BadVolumeName, HeldVolume, MAX_VOLUME_NAME, MAX_VOLUMES, VolumeId, VolumeMount, VolumeScope,
    is_volume_name,
};
pub use window::{Opens, Window};
pub use wishes::{Preference, Preferred, ScoreWeights, SpreadRule};
