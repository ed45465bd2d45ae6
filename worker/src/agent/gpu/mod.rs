//! How busy the GPUs are that this worker trains on. At each heartbeat their driver is asked, and the
//! heartbeat tells what it answered before.
//!
//! A driver may take its time, and where a GPU has broken down it may never answer. So a thread of its
//! own asks it, for which nobody waits: no heartbeat, and not the end of this process.

mod nvidia;

use std::collections::BTreeSet;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fittingroom_common::convert::MAX_GPUS;
use fittingroom_common::gpu::GpuLoad;
use tracing::debug;

use self::nvidia::Nvidia;
use super::device::Device;

/// Who knows how busy GPUs are.
pub trait GpuSource {
    /// How busy they are now, without those that do not answer. May take as long as it likes.
    fn sample(&mut self) -> Vec<GpuLoad>;
}

#[derive(Debug)]
struct Sample {
    /// When it was asked for.
    asked: Instant,
    gpus: Vec<GpuLoad>,
}

/// A thread that asks a source whenever that is wished, until this and its clones are dropped.
#[derive(Clone, Debug)]
pub struct GpuWatch {
    wishes: SyncSender<()>,
    newest: Arc<Mutex<Option<Sample>>>,
}

impl GpuWatch {
    /// Watches the NVIDIA GPUs among these devices, if there are any.
    pub fn on(devices: &[Device]) -> Option<Self> {
        let number = |device: &Device| match device {
            Device::Cuda(number) => u32::try_from(*number).ok(),
            Device::Cpu | Device::Metal => None,
        };
        let numbers: BTreeSet<u32> = devices.iter().filter_map(number).take(MAX_GPUS).collect();
        (!numbers.is_empty()).then(|| Self::start(move || Nvidia::open(&numbers)))
    }

    /// Watches the source that is opened, in the thread. Where there is none, nothing is ever known.
    pub fn start<S: GpuSource>(open: impl FnOnce() -> Option<S> + Send + 'static) -> Self {
        let (wishes, wished) = sync_channel(1);
        let newest = Arc::new(Mutex::new(None));
        let known = Arc::clone(&newest);
        let watch = move || {
            let Some(mut source) = open() else { return };
            for () in wished {
                let asked = Instant::now();
                let gpus = source.sample();
                *lock(&known) = Some(Sample { asked, gpus });
            }
        };
        if let Err(error) = thread::Builder::new().name("gpus".to_owned()).spawn(watch) {
            debug!(%error, "no thread to watch GPUs with");
        }
        Self { wishes, newest }
    }

    /// What was last known, if it is not too old; and wishes for something newer. Waits for nothing.
    pub(crate) fn newest(&self, most_age: Duration) -> Vec<GpuLoad> {
        // There is no room for the wish while the one before waits, nor where nobody listens.
        let _ = self.wishes.try_send(());
        let newest = lock(&self.newest);
        let fresh = newest.as_ref().filter(|it| it.asked.elapsed() <= most_age);
        fresh.map(|it| it.gpus.clone()).unwrap_or_default()
    }
}

fn lock(newest: &Mutex<Option<Sample>>) -> MutexGuard<'_, Option<Sample>> {
    // It is replaced as a whole, so a panic leaves nothing half-done.
    newest.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use fittingroom_common::gpu::{GpuMemory, GpuWords, Utilization};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// A driver that answers when the test says so, and with what.
    struct Slow {
        answers: Receiver<Vec<GpuLoad>>,
        asked: Sender<()>,
    }

    impl GpuSource for Slow {
        fn sample(&mut self) -> Vec<GpuLoad> {
            let _ = self.asked.send(());
            self.answers.recv().unwrap_or_default()
        }
    }

    fn slow() -> (GpuWatch, Sender<Vec<GpuLoad>>, Receiver<()>) {
        let ((answer, answers), (asked, was_asked)) = (channel(), channel());
        (GpuWatch::start(move || Some(Slow { answers, asked })), answer, was_asked)
    }

    fn gpu(utilization: f64) -> Vec<GpuLoad> {
        vec![GpuLoad {
            number: 0,
            uuid: GpuWords::sanitised("GPU-0"),
            name: GpuWords::sanitised("a GPU"),
            utilization: Utilization::new(utilization),
            memory: GpuMemory::new(1, 2),
        }]
    }

    #[test]
    fn what_was_wished_for_is_known_the_next_time() {
        let (watch, answer, asked) = slow();
        assert_eq!(watch.newest(LONG), [], "nothing was asked for yet");
        for utilization in [0.25, 0.5] {
            asked.recv_timeout(LONG).expect("the driver is asked");
            answer.send(gpu(utilization)).expect("listens");
            // The wish for the next is taken up when the answer is known.
            watch.newest(LONG);
            asked.recv_timeout(LONG).expect("the driver is asked again");
            assert_eq!(watch.newest(LONG), gpu(utilization));
            answer.send(gpu(0.0)).expect("listens");
        }
    }

    #[test]
    fn a_driver_that_does_not_answer_holds_nobody_up_and_what_it_said_before_grows_old() {
        let (watch, answer, asked) = slow();
        watch.newest(LONG);
        answer.send(gpu(1.0)).expect("listens");
        asked.recv_timeout(LONG).expect("the driver is asked");
        watch.newest(LONG);
        asked.recv_timeout(LONG).expect("the driver is asked, and answers no more");
        for _ in 0..1000 {
            assert_eq!(watch.newest(LONG), gpu(1.0));
        }
        assert!(asked.try_recv().is_err(), "it is asked one thing at a time");
        thread::sleep(Duration::from_millis(2));
        assert_eq!(watch.newest(Duration::from_millis(1)), []);
        drop(watch);
        drop(answer);
        let ended = asked.iter().count();
        assert!(ended <= 1, "one wish was left, and then the thread ended: {ended}");
    }

    #[test]
    fn without_a_driver_nothing_is_known_and_without_gpus_nothing_is_watched() {
        let watch = GpuWatch::start(|| None::<Nvidia>);
        for _ in 0..3 {
            assert_eq!(watch.newest(LONG), []);
        }
        assert!(GpuWatch::on(&[Device::Cpu, Device::Metal]).is_none());
        // Whether or not this machine has a driver.
        assert!(GpuWatch::on(&[Device::Cuda(99)]).is_some_and(|watch| watch.newest(LONG).is_empty()));
    }
}
