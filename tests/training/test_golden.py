"""Numbers of training that other projects published."""

import json

import numpy as np

import fastlstm as fl


class LastDense(fl.Module):
    """The sum of the last output of an LSTM times a weight."""

    def __init__(self, lstm, dense):
        self.lstm, self.dense = lstm, dense

    def __call__(self, x):
        return self.dense(self.lstm(x)[0][:, -1])

    def forward(self, x):
        (y, _), tape = self.lstm.forward(x)
        pred, own = self.dense.forward(y[:, -1])
        return pred, (tape, own, y.shape)

    def backward(self, tape, dpred):
        tape, own, shape = tape
        dense = self.dense.backward(own, dpred)
        dy = np.zeros(shape, np.float32)
        dy[:, -1] = dense.x
        return self.collect(lstm=self.lstm.backward(tape, dy), dense=dense)


def test_two_steps_of_sgd(cases):
    case = json.loads((cases / "training.json").read_text())
    I, H = case["input_size"], case["hidden_size"]
    lstm = fl.LSTM(I, H, bias=False, batch_first=True, activations=("hard_sigmoid", "tanh", "tanh"))
    lstm.load_state_dict({name: np.zeros_like(p) for name, p in lstm.parameters().items()})
    dense = fl.Linear(H, 1, bias=False)
    dense.load_state_dict({"weight": np.ones((1, H))})
    model = LastDense(lstm, dense)
    trainer = fl.Trainer(model, "mse", fl.optim.SGD(case["learning_rate"]))
    x = np.ones((3, 5, I)).swapaxes(0, 1)  # the numbers are those of three steps of five rows
    trainer.fit(x, np.ones((5, 1)), epochs=case["sgd_steps"], batch_size=5, progress=False)
    found = trainer.model.state_dict()
    for name, row in (("weight_ih_l0", "kernel_row"), ("weight_hh_l0", "recurrent_row")):
        wanted = np.array(case[row])[:, None]
        array = found[f"lstm.{name}"]
        np.testing.assert_allclose(array, np.broadcast_to(wanted, array.shape), atol=1e-5)
    np.testing.assert_allclose(found["dense.weight"], case["dense"], atol=1e-5)
