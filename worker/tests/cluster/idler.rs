//! A worker that does as little as it has to: it takes trials, and trains none.

use fittingroom_common::proto as pb;
use fittingroom_common::proto::worker_service_client::WorkerServiceClient;
use tonic::transport::Channel;

/// Takes work on so many slots. Answers the connection, and the attempts that are held.
pub(crate) async fn hold(url: &str, slots: u32) -> (WorkerServiceClient<Channel>, Vec<pb::AttemptHolder>) {
    let worker_id = vec![7; 16];
    let mut calls = WorkerServiceClient::connect(url.to_owned()).await.expect("connects");
    let request = pb::RegisterRequest {
        protocol_version: pb::PROTOCOL_VERSION,
        worker_id: worker_id.clone(),
        name: "hasty".to_owned(),
        slots,
        device: "none".to_owned(),
        program_version: "0".to_owned(),
    };
    calls.register(request).await.expect("a good worker");
    let mut held = Vec::new();
    for slot in 0..slots {
        let request = pb::LeaseRequest { worker_id: worker_id.clone(), slot, wait_ms: 1000 };
        let leased = calls.lease(request).await.expect("a good call").into_inner();
        let pb::Assignment { search, attempt, .. } = leased.assignment.expect("there is work");
        held.push(pb::AttemptHolder { worker_id: worker_id.clone(), search, attempt });
    }
    (calls, held)
}
