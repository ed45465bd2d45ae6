//! The coordinator under load: the real program, in a process of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fittingroom_common::dataset::FileRole;
use fittingroom_common::proto as pb;
use fittingroom_common::space::SearchSpec;
use pb::operator_service_client::OperatorServiceClient;
use tonic::transport::{Channel, Endpoint};

use crate::measure::{Usage, usage};
use crate::{Failure, Load};

/// The name of the search under load.
pub(crate) const SEARCH: &str = "load";
const DATASET: &str = "synthetic";
const IMAGES: u32 = 32;

/// A coordinator, killed when it is dropped.
pub(crate) struct Server {
    process: Child,
    folder: PathBuf,
    pub(crate) url: String,
    /// How long it took to answer calls.
    pub(crate) start: Duration,
}

impl Server {
    /// Starts a coordinator on what is in this folder.
    pub(crate) fn start(folder: &Path) -> Result<Self, Failure> {
        make_dataset(&folder.join("datasets").join(DATASET))?;
        let begin = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_fittingroom"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.join("data"))
            .arg("--datasets")
            .arg(folder.join("datasets"))
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("coordinator.log"))?)
            .spawn()?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut url)?;
        let url = url.trim().to_owned();
        if url.is_empty() {
            let log = std::fs::read_to_string(folder.join("coordinator.log"))?;
            return Err(format!("the coordinator does not start: {log}").into());
        }
        Ok(Self { process, folder: folder.to_owned(), url, start: begin.elapsed() })
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        usage(self.process.id())
    }

    /// The size of its log, in MiB.
    pub(crate) fn log_size(&self) -> Result<f64, Failure> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(self.folder.join("data"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("log.sqlite") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes as f64 / f64::from(1 << 20))
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<Channel, Failure> {
        let endpoint = Endpoint::from_shared(self.url.clone())?;
        Ok(endpoint.connect_timeout(Duration::from_secs(10)).tcp_nodelay(true).connect().await?)
    }

    pub(crate) async fn operator(&self) -> Result<OperatorServiceClient<Channel>, Failure> {
        Ok(OperatorServiceClient::new(self.connect().await?))
    }

    /// Launches a random search in five dimensions.
    pub(crate) async fn launch(&self, load: Load, trials: u64) -> Result<(), Failure> {
        let file = format!(
            "method: random\nrun_cap: {trials}\nepochs: {}\nparameters:\n  \
             learning_rate: {{distribution: log_uniform_values, min: 0.0001, max: 0.1}}\n  \
             weight_decay: {{distribution: log_uniform_values, min: 0.000001, max: 0.01}}\n  \
             dropout: {{min: 0.0, max: 0.5}}\n  batch_size: {{values: [64, 128, 256]}}\n  \
             optimizer: {{values: [sgd, adam, adamw]}}\n",
            load.epochs
        );
        let spec = SearchSpec::parse("load.yaml", &file)?.spec;
        let mut operator = self.operator().await?;
        let request = pb::FetchDatasetRequest { name: DATASET.to_owned() };
        let mut steps = operator.fetch_dataset(request).await?.into_inner();
        while steps.message().await?.is_some() {}
        let request = pb::LaunchRequest {
            name: SEARCH.to_owned(),
            spec: Some((&spec).into()),
            dataset: DATASET.to_owned(),
        };
        operator.launch(request).await?;
        Ok(())
    }

    /// Ends the search, so that no worker holds any of it.
    pub(crate) async fn cancel(&self) -> Result<(), Failure> {
        let request = pb::ControlRequest { name: SEARCH.to_owned(), action: pb::Action::Cancel.into() };
        self.operator().await?.control(request).await?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Four IDX files, as small as they may be: nobody trains on them.
fn make_dataset(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    for role in FileRole::ALL {
        let (dimensions, pixels) = match role {
            FileRole::TrainImages | FileRole::TestImages => (&[IMAGES, 8, 8][..], 64),
            FileRole::TrainLabels | FileRole::TestLabels => (&[IMAGES][..], 1),
        };
        let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
        dimensions.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
        bytes.extend((0..IMAGES * pixels).map(|index| (index / pixels % 2) as u8));
        std::fs::write(folder.join(role.file_name()), bytes)?;
    }
    Ok(())
}
