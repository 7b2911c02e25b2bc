FROM busybox
RUN make
RUN ["make", "$not_expanded"]
RUN --network=host make
RUN --network=default --security=insecure make
RUN --device=vendor.example/class=one make
