FROM scratch
ADD a /dir/
ADD --unpack=false a.tar /packed/
ADD --chown=1:2 --chmod=0600 a b /owned/
ADD --link --exclude=*.o . /linked/
