import pytest
from art.estimators.classification import PyTorchClassifier  # noqa: F401
from art.exceptions import EstimatorError


def backend_test_classifier_type_check_fail(attack, classifier_expected_list):
    class ClassifierNoAPI:
        pass

    assert set(classifier_expected_list) == set(attack._estimator_requirements)
    with pytest.raises(EstimatorError) as exception:
        attack(ClassifierNoAPI)
    assert set(classifier_expected_list) <= set(exception.value.class_expected_list)
