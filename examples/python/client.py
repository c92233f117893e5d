"""Stores, fetches and deletes an image with the requests library.

    go run ./cmd/imaged
    python3 examples/python/client.py
"""

import os

import requests


def test_post():
    url = 'http://127.0.0.1:8080/images/TestPost'
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "test_image.png")
    with open(path, "rb") as f:
        files = {"file": f}
        response = requests.post(url, files=files)
    response.raise_for_status()
    print("POST:", response.status_code, response.json()["id"])


def test_get():
    url = 'http://127.0.0.1:8080/images/TestPost'
    response = requests.get(url)
    response.raise_for_status()
    os.makedirs("TestGet", exist_ok=True)
    with open("TestGet/test_image.png", "wb") as f:
        f.write(response.content)
    print("GET:", response.status_code, len(response.content), "bytes")


def test_delete():
    url = 'http://127.0.0.1:8080/images/TestPost'
    response = requests.delete(url)
    response.raise_for_status()
    print("DELETE:", response.status_code)


if __name__ == "__main__":
    test_post()
    test_get()
    test_delete()
