"""Write the methods in words, and list the works they cite."""

from __future__ import annotations

from collections.abc import Sequence

from fmrisynth.evaluation.result import Evaluation
from fmrisynth.reports.templating import environment

__all__ = ["methods", "references"]

_REFERENCES = {
    "Abraham": "Abraham, A., Pedregosa, F., Eickenberg, M., et al. (2014). Machine learning for "
    "neuroimaging with scikit-learn. Frontiers in Neuroinformatics, 8, 14. "
    "doi:10.3389/fninf.2014.00014",
    "Ciric": "Ciric, R., Thompson, W. H., Lorenz, R., et al. (2022). TemplateFlow: FAIR-sharing "
    "of multi-scale, multi-species brain models. Nature Methods, 19, 1568–1571. "
    "doi:10.1038/s41592-022-01681-2",
    "Dice": "Dice, L. R. (1945). Measures of the amount of ecologic association between species. "
    "Ecology, 26(3), 297–302. doi:10.2307/1932409",
    "Ellis": "Ellis, C. T., Baldassano, C., Schapiro, A. C., et al. (2020). Facilitating "
    "open-science with realistic fMRI simulation: validation and application. PeerJ, 8, e8564. "
    "doi:10.7717/peerj.8564",
    "Finn": "Finn, E. S., Shen, X., Scheinost, D., et al. (2015). Functional connectome "
    "fingerprinting: identifying individuals using patterns of brain connectivity. Nature "
    "Neuroscience, 18, 1664–1671. doi:10.1038/nn.4135",
    "Forman": "Forman, S. D., Cohen, J. D., Fitzgerald, M., et al. (1995). Improved assessment of "
    "significant activation in functional magnetic resonance imaging (fMRI): use of a "
    "cluster-size threshold. Magnetic Resonance in Medicine, 33, 636–647. "
    "doi:10.1002/mrm.1910330508",
    "Glover": "Glover, G. H. (1999). Deconvolution of impulse response in event-related BOLD "
    "fMRI. NeuroImage, 9(4), 416–429. doi:10.1006/nimg.1998.0419",
    "Gorgolewski": "Gorgolewski, K. J., Auer, T., Calhoun, V. D., et al. (2016). The brain "
    "imaging data structure, a format for organizing and describing outputs of neuroimaging "
    "experiments. Scientific Data, 3, 160044. doi:10.1038/sdata.2016.44",
    "Hesterberg": "Hesterberg, T. C. (2015). What teachers should know about the bootstrap: "
    "resampling in the undergraduate statistics curriculum. The American Statistician, 69, "
    "371–386. doi:10.1080/00031305.2015.1089789",
    "Kriegeskorte": "Kriegeskorte, N., Mur, M., & Bandettini, P. (2008). Representational "
    "similarity analysis – connecting the branches of systems neuroscience. Frontiers in Systems "
    "Neuroscience, 2, 4. doi:10.3389/neuro.06.004.2008",
    "Schaefer": "Schaefer, A., Kong, R., Gordon, E. M., et al. (2018). Local-global parcellation "
    "of the human cerebral cortex from intrinsic functional connectivity MRI. Cerebral Cortex, "
    "28(9), 3095–3114. doi:10.1093/cercor/bhx179",
    "Shokri": "Shokri, R., Stronati, M., Song, C., & Shmatikov, V. (2017). Membership inference "
    "attacks against machine learning models. IEEE Symposium on Security and Privacy, 3–18. "
    "doi:10.1109/SP.2017.41",
    "Ward": "Ward, J. H. (1963). Hierarchical grouping to optimize an objective function. "
    "Journal of the American Statistical Association, 58, 236–244. "
    "doi:10.1080/01621459.1963.10500845",
}
"""First author → the full reference."""


def methods(evaluation: Evaluation) -> tuple[str, ...]:
    """Describe what was done, in paragraphs that may be copied into a paper.

    Parameters
    ----------
    evaluation : Evaluation
        What was done.

    Returns
    -------
    tuple of str
        Plain text.
    """
    text = (
        environment(escape=False)
        .get_template("methods.txt")
        .render(
            evaluation=evaluation,
            conditions=evaluation.conditions,
            metrics={row for estimates in evaluation.estimates.values() for row in estimates},
        )
    )
    return tuple(
        " ".join(paragraph.split()) for paragraph in text.split("\n\n") if paragraph.strip()
    )


def references(paragraphs: Sequence[str]) -> tuple[str, ...]:
    """List the works that some paragraphs cite, in alphabetical order.

    Parameters
    ----------
    paragraphs : sequence of str
        From `methods`; works are cited by first author and year.

    Returns
    -------
    tuple of str
    """
    text = " ".join(paragraphs)
    return tuple(
        full
        for author, full in sorted(_REFERENCES.items())
        if f"{author} et al." in text
        or f"({author}, " in text
        or f"; {author}, " in text
        or f"{author} & " in text
    )
