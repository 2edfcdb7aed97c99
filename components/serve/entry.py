"""What a Bento imports: the service of the model files that lie beside this package."""

from pathlib import Path

from components.core.serving import MODEL_FOLDER
from components.serve.service import create_service

service = create_service(Path(__file__).resolve().parents[2] / MODEL_FOLDER)
