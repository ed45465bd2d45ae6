//! Files whose parts are good, and that are no search.

use super::must_be_told;

#[test]
fn a_wrong_search_is_told_where_and_why() {
    must_be_told(&[
        (
            "endless grid",
            "method: grid\nparameters:\n  dropout: {min: 0.0, max: 0.5}\n",
            "3:3",
            &["uniform has no end", "`values`", "method: random"],
        ),
        (
            "large grid",
            "method: grid\nreplicates: 1000\nparameters:\n  batch_size: {min: 1, max: 1001}\n",
            "3:1",
            &["1001000 trials", "1000000"],
        ),
        (
            "random without an end",
            "method: random\nparameters: {dropout: {min: 0.0, max: 0.5}}\n",
            "1:9",
            &["run_cap"],
        ),
        (
            "run_cap of 0",
            "method: random\nrun_cap: 0\nparameters: {dropout: {value: 0.1}}\n",
            "2:10",
            &["at least 1"],
        ),
        (
            "no replicates",
            "method: grid\nreplicates: 0\nparameters: {dropout: {value: 0.1}}\n",
            "2:13",
            &["at least 1"],
        ),
        (
            "epochs twice",
            "method: grid\nepochs: 3\nparameters:\n  epochs: {value: 2}\n",
            "4:3",
            &["epochs", "twice"],
        ),
        (
            "epochs of 0",
            "method: grid\nepochs: 0\nparameters: {dropout: {value: 0.1}}\n",
            "2:9",
            &["epochs cannot be 0"],
        ),
        (
            "epochs searched at the top",
            "method: grid\nepochs: {values: [1, 2]}\n",
            "2:9",
            &["under `parameters:`"],
        ),
        ("budget without a unit", "method: grid\nbudget: 90\n", "2:9", &["unit", "90s"]),
        (
            "checkpoint of a number",
            "method: grid\ncheckpoint: 60\n",
            "2:13",
            &["{every_seconds: 60}", "never"],
        ),
        (
            "checkpoint of another word",
            "method: grid\ncheckpoint: always\n",
            "2:13",
            &["\"always\"", "never"],
        ),
        ("checkpoint of nothing", "method: grid\ncheckpoint: {}\n", "2:1", &["when", "{every_seconds: 60}"]),
        (
            "checkpoint of zero",
            "method: grid\ncheckpoint: {every_epochs: 0}\n",
            "2:28",
            &["at least 1", "never"],
        ),
        (
            "checkpoint of half a second",
            "method: grid\ncheckpoint: {every_seconds: 0.5}\n",
            "2:29",
            &["whole"],
        ),
        (
            "unknown key of a checkpoint",
            "method: grid\ncheckpoint: {every_epoch: 1}\n",
            "2:14",
            &["every_epoch\"", "every_epochs"],
        ),
        ("budget of words", "method: grid\nbudget: soon\n", "2:9", &["unit"]),
        ("dataset with spaces", "method: grid\ndataset: my images\n", "2:10", &["my images", "./my-images"]),
        (
            "metric of the test set",
            "method: grid\nmetric: {name: test_accuracy}\n",
            "2:16",
            &["never ranked by the test set", "validation_accuracy"],
        ),
        (
            "alias of a metric",
            "method: grid\nmetric: {name: val_loss, goal: minimize}\n",
            "2:16",
            &["`validation_loss`"],
        ),
        (
            "unknown metric",
            "method: grid\nmetric: {name: speed}\n",
            "2:16",
            &["validation_accuracy and validation_loss"],
        ),
        (
            "contradicting goal",
            "method: grid\nmetric: {goal: minimize, name: validation_accuracy}\n",
            "2:16",
            &["goal: maximize"],
        ),
        (
            "unknown controller",
            "method: grid\nparameters:\n  momentum: {values: [0, 0.9], when: {optimizer: sgd}}\n",
            "3:50",
            &["optimizer", "does not name"],
        ),
        (
            "drawn controller",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {min: 0.0, max: 0.5}\n  momentum: {value: 0.9, when: {dropout: 0.1}}\n",
            "5:42",
            &["dropout", "uniform"],
        ),
        (
            "own controller",
            "method: grid\nparameters:\n  dropout: {values: [0.1, 0.2], when: {dropout: 0.1}}\n",
            "3:33",
            &["depends on itself"],
        ),
        (
            "circle",
            "method: grid\nparameters:\n  model: {values: [fcn, lenet], when: {optimizer: sgd}}\n  optimizer: {values: [sgd, adam], when: {model: fcn}}\n",
            "3:33",
            &["depends on itself"],
        ),
        (
            "an optimizer named for the momentum that it lacks",
            "method: grid\nparameters:\n  optimizer: {values: [sgd, nesterov]}\n  learning_rate: {values: [0.1, 0.2]}\n",
            "3:3",
            &["nesterov needs a momentum above 0", "momentum: {value: 0.9}"],
        ),
        (
            "a point that lacks momentum",
            "points:\n  - {optimizer: momentum, momentum: 0.9}\n  - {optimizer: momentum}\n",
            "3:17",
            &["momentum needs a momentum above 0"],
        ),
        (
            "unknown value of a controller",
            "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n  momentum: {values: [0, 0.9], when: {optimizer: sdgd}}\n",
            "4:50",
            &["\"sgd\""],
        ),
        (
            "no value of a controller",
            "method: grid\nparameters:\n  optimizer: {values: [sgd, adam]}\n  momentum: {values: [0, 0.9], when: {optimizer: []}}\n",
            "4:39",
            &["no value"],
        ),
        (
            "points twice",
            "points:\n  - {optimizer: sgd}\n  - {optimizer: adam}\n  - {optimizer: sgd}\n",
            "4:5",
            &["the same as point 1"],
        ),
        ("no points", "points: []\n", "1:1", &["empty"]),
        ("a point that is none", "points: [sgd]\n", "1:10", &["mapping"]),
        (
            "points and grid",
            "method: grid\nparameters: {dropout: {value: 0.1}}\npoints: [{optimizer: sgd}]\n",
            "3:1",
            &["grid"],
        ),
        (
            "points and a list",
            "parameters:\n  dropout: {values: [0.1, 0.2]}\npoints: [{optimizer: sgd}]\n",
            "2:3",
            &["one value that all points share"],
        ),
        (
            "points and a shared value",
            "parameters:\n  dropout: {value: 0.1}\npoints: [{dropout: 0.2}]\n",
            "3:20",
            &["dropout", "twice"],
        ),
        ("unknown hyperparameter of a point", "points: [{optimiser: sgd}]\n", "1:11", &["\"optimizer\""]),
        (
            "infinite",
            "method: random\nrun_cap: 1\nparameters:\n  dropout: {min: -.inf, max: 0.5}\n",
            "4:18",
            &["finite"],
        ),
        ("deep nesting", &format!("method: {}", "[".repeat(5_000)), "1:41", &["YAML"]),
        ("key that is a list", "? [a, b]\n: 1\n", "1:3", &["YAML"]),
    ]);
}
