"""What the paper reports for POPGym: mean returns of table 9 of its NeurIPS 2025 submission.

Three runs of 100 episodes each. The standard errors are mostly 0.00 to 0.05 and not kept here one by one.
"""

from rate.envs.score import Figure

_MODELS = ("RATE", "DT", "random", "BC-MLP", "BC-LSTM", "data set")
_SOURCE = "Table 9 (NeurIPS 2025 submission), popgym 1.0.6"

_RETURNS = {
    "AutoencodeEasy": (-0.29, -0.47, -0.5, -0.47, -0.32, -0.26),
    "AutoencodeMedium": (-0.47, -0.49, -0.5, -0.49, -0.47, -0.48),
    "AutoencodeHard": (-0.46, -0.49, -0.5, -0.5, -0.44, -0.43),
    "BattleshipEasy": (-0.81, -0.93, -0.46, -1.0, -0.49, -0.35),
    "BattleshipMedium": (-0.91, -0.91, -0.39, -1.0, -0.81, -0.43),
    "BattleshipHard": (-0.92, -0.97, -0.41, -1.0, -0.67, -0.4),
    "ConcentrationEasy": (-0.06, -0.05, -0.19, -0.92, -0.14, -0.12),
    "ConcentrationMedium": (-0.84, -0.84, -0.84, -0.88, -0.84, -0.87),
    "ConcentrationHard": (-0.25, -0.25, -0.19, -0.92, -0.19, -0.44),
    "CountRecallEasy": (0.07, -0.46, -0.93, -0.92, 0.05, 0.22),
    "CountRecallMedium": (-0.47, -0.75, -0.88, -0.88, -0.47, -0.48),
    "CountRecallHard": (-0.54, -0.81, -0.93, -0.92, -0.56, -0.55),
    "HigherLowerEasy": (0.5, 0.5, 0.0, 0.47, 0.5, 0.51),
    "HigherLowerMedium": (0.5, 0.5, -0.01, 0.49, 0.5, 0.49),
    "HigherLowerHard": (0.52, 0.51, 0.01, 0.5, 0.51, 0.49),
    "LabyrinthEscapeEasy": (0.95, 0.8, -0.39, 0.72, 0.92, 0.95),
    "LabyrinthEscapeMedium": (-0.81, -0.82, -0.94, -0.89, -0.86, -0.94),
    "LabyrinthEscapeHard": (-0.56, -0.67, -0.84, -0.71, -0.69, -0.49),
    "LabyrinthExploreEasy": (0.95, 0.88, -0.34, 0.87, 0.93, 0.96),
    "LabyrinthExploreMedium": (0.79, 0.77, -0.73, 0.26, 0.71, 0.79),
    "LabyrinthExploreHard": (0.88, 0.86, -0.61, 0.45, 0.82, 0.87),
    "MineSweeperEasy": (0.15, -0.33, -0.26, -0.47, 0.2, 0.28),
    "MineSweeperMedium": (-0.44, -0.4, -0.43, -0.49, -0.35, -0.27),
    "MineSweeperHard": (-0.2, -0.37, -0.39, -0.48, -0.16, -0.1),
    "MultiarmedBanditEasy": (0.37, 0.27, 0.02, 0.05, 0.17, 0.62),
    "MultiarmedBanditMedium": (0.22, 0.27, 0.01, 0.01, 0.17, 0.43),
    "MultiarmedBanditHard": (0.32, 0.35, 0.01, 0.21, 0.14, 0.59),
    "NoisyPositionOnlyCartPoleEasy": (0.88, 0.87, 0.11, 0.23, 0.44, 0.98),
    "NoisyPositionOnlyCartPoleMedium": (0.18, 0.17, 0.11, 0.16, 0.22, 0.36),
    "NoisyPositionOnlyCartPoleHard": (0.33, 0.34, 0.12, 0.18, 0.25, 0.57),
    "NoisyPositionOnlyPendulumEasy": (0.87, 0.84, 0.27, 0.31, 0.88, 0.9),
    "NoisyPositionOnlyPendulumMedium": (0.6, 0.56, 0.26, 0.28, 0.66, 0.67),
    "NoisyPositionOnlyPendulumHard": (0.68, 0.63, 0.27, 0.3, 0.72, 0.73),
    "PositionOnlyCartPoleEasy": (0.93, 1.0, 0.12, 0.15, 0.17, 1.0),
    "PositionOnlyCartPoleMedium": (0.05, 0.03, 0.04, 0.05, 0.06, 1.0),
    "PositionOnlyCartPoleHard": (0.07, 0.34, 0.05, 0.09, 0.12, 1.0),
    "PositionOnlyPendulumEasy": (0.54, 0.51, 0.27, 0.29, 0.91, 0.92),
    "PositionOnlyPendulumMedium": (0.47, 0.49, 0.26, 0.28, 0.82, 0.82),
    "PositionOnlyPendulumHard": (0.49, 0.55, 0.26, 0.3, 0.89, 0.88),
    "RepeatFirstEasy": (1.0, 0.45, -0.49, -0.5, 1.0, 1.0),
    "RepeatFirstMedium": (0.1, 0.42, -0.5, -0.5, -0.5, 0.99),
    "RepeatFirstHard": (0.99, -0.21, -0.5, -0.5, 0.99, 1.0),
    "RepeatPreviousEasy": (1.0, 1.0, -0.49, -0.52, 1.0, 1.0),
    "RepeatPreviousMedium": (-0.46, -0.47, -0.51, -0.48, -0.45, -0.48),
    "RepeatPreviousHard": (-0.38, -0.38, -0.5, -0.5, -0.38, -0.39),
    "VelocityOnlyCartpoleEasy": (1.0, 1.0, 0.11, 0.99, 1.0, 1.0),
    "VelocityOnlyCartpoleMedium": (1.0, 0.96, 0.04, 0.63, 1.0, 0.99),
    "VelocityOnlyCartpoleHard": (1.0, 1.0, 0.06, 0.83, 1.0, 1.0),
}


def figures(name: str) -> tuple[Figure, ...]:
    """The paper's figures for a task, such as ``RepeatFirstEasy``."""
    return tuple(
        Figure(model, value, None, _SOURCE) for model, value in zip(_MODELS, _RETURNS[name], strict=True)
    )
