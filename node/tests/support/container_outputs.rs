//! What containers of jobs tell.

use dunlin_core::io::RuntimeEvent;
use dunlin_state::model::Outputs;

use super::{CleanUp, container, lab};

#[tokio::test]
async fn a_container_of_any_user_tells_and_is_given() {
    // Says so and returns without an engine.
    let Some(mut lab) = lab().await else { return };
    let _clean = CleanUp(lab.config.node);
    lab.tells = true;
    lab.given = [("JOB_A".to_owned(), "1 2".to_owned())].into();
    let mut spec = container("echo \"A=$JOB_A\" >> $DUNLIN_OUTPUT; echo B=b >> $DUNLIN_OUTPUT");
    spec.user = Some("1234:1234".to_owned());
    let id = lab.start(0, spec).await.id;
    match lab.next().await {
        RuntimeEvent::Exited {
            id: ended,
            code,
            outputs,
            ..
        } => {
            assert_eq!((ended, code), (id, 0));
            assert_eq!(outputs, Outputs::parse(b"A=1 2\nB=b"));
        }
        other => panic!("{other:?}"),
    }
}
