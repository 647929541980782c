"""Any source as Keras' own kind of data set. A file by itself: Keras' pool needs a class it can import, and importing
Keras takes seconds that the other contenders need not spend."""

import keras


class Dataset(keras.utils.PyDataset):
    def __init__(self, source, **settings):
        super().__init__(**settings)
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        return self.source[index]
