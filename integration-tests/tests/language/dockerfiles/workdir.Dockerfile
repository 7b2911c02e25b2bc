FROM scratch
WORKDIR /one
WORKDIR two/../three
WORKDIR ../four
USER 7
ENV DIR=five
WORKDIR $DIR
COPY a b
WORKDIR /
